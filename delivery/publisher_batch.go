package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// defaultBatchSizeLimit is the default of PublisherConfig.BatchSizeLimit.
const defaultBatchSizeLimit = 1000

// BatchResult tells what became of a batch.
type BatchResult struct {
	// Total is the size of the batch, Succeeded + Failed.
	Total     int
	Succeeded int
	Failed    int
	// Results has one entry for each message, in the batch's order.
	Results []Result
}

// SendBatch publishes messages that belong together: none is sent unless all are
// valid. A batch that is empty, larger than PublisherConfig.BatchSizeLimit, or has
// invalid messages is a *BatchError. ErrSwitchedOff says that
// PublisherConfig.NoBatch is set, ErrClosed that the Publisher was closed, ctx's
// error that ctx had ended before. After each of these nothing was sent, and the
// result is zero. Otherwise the result tells of each message, and the error is nil
// when all are durable, or Publish's *ResultsError.
//
// A batch is no transaction: when the transport or the store fails halfway, some
// messages are durable and some are not. PublishIn makes it one.
func (p *Publisher) SendBatch(ctx context.Context, messages []Message) (BatchResult, error) {
	if err := p.begin(ctx); err != nil {
		return BatchResult{}, err
	}
	defer p.calls.end()
	if p.config.NoBatch {
		return BatchResult{}, fmt.Errorf("%w: SendBatch, by PublisherConfig.NoBatch", ErrSwitchedOff)
	}
	if n := len(messages); n < 1 || n > p.config.BatchSizeLimit {
		return BatchResult{}, &BatchError{Size: n, Limit: p.config.BatchSizeLimit}
	}
	begin := time.Now()
	batch := envelopesOf(messages, begin)
	if err := p.checkBatch(batch); err != nil {
		return BatchResult{}, err
	}
	err := p.publish(ctx, batch, nil, begin)
	result := BatchResult{Total: len(batch)}
	var each *ResultsError
	switch {
	case err == nil:
		result.Results = make([]Result, len(batch))
		for i := range batch {
			result.Results[i].ID = batch[i].ID
		}
	case errors.As(err, &each):
		result.Results = each.Results
	default:
		return BatchResult{}, err
	}
	for i := range result.Results {
		if result.Results[i].Err == nil {
			result.Succeeded++
		} else {
			result.Failed++
		}
	}
	return result, err
}

// checkBatch validates all messages of a batch.
func (p *Publisher) checkBatch(batch []Envelope) error {
	fault := &BatchError{Size: len(batch), Limit: p.config.BatchSizeLimit}
	places := make(map[string]int, len(batch))
	for i := range batch {
		message := &batch[i].Message
		err := p.check(message)
		if first, repeated := places[message.ID]; repeated {
			err = errors.Join(err, &InvalidError{Field: "ID", Problem: fmt.Sprintf("is that of message %d of the batch, too", first)})
		} else {
			places[message.ID] = i
		}
		if err != nil {
			fault.Invalid = append(fault.Invalid, InvalidMessage{Index: i, ID: message.ID, Err: err})
		}
	}
	if fault.Invalid != nil {
		return fault
	}
	return nil
}

// BatchError says why nothing of a batch was sent. It is ErrInvalid.
type BatchError struct {
	// Size is that of the batch, Limit is what is allowed. Where Size is from 1 to
	// Limit, the messages in Invalid are at fault.
	Size  int
	Limit int
	// Invalid has every invalid message, in the batch's order.
	Invalid []InvalidMessage
}

// InvalidMessage is a message that keeps its batch from being sent.
type InvalidMessage struct {
	// Index is the message's place in the batch, from 0.
	Index int
	// ID of the message, made by SendBatch if it had none.
	ID string
	// Err says what is wrong with it: *InvalidError and *TooLargeError, joined.
	Err error
}

func (e *BatchError) Error() string {
	if len(e.Invalid) == 0 {
		return fmt.Sprintf("delivery: batch has %d messages, want 1 to %d", e.Size, e.Limit)
	}
	const shown = 3
	var text strings.Builder
	fmt.Fprintf(&text, "delivery: batch not sent, %d of %d messages are invalid", len(e.Invalid), e.Size)
	for _, invalid := range e.Invalid[:min(shown, len(e.Invalid))] {
		fmt.Fprintf(&text, "; [%d] %s: %v", invalid.Index, invalid.ID, invalid.Err)
	}
	if more := len(e.Invalid) - shown; more > 0 {
		fmt.Fprintf(&text, "; and %d more", more)
	}
	return text.String()
}

// Is makes it ErrInvalid.
func (e *BatchError) Is(target error) bool { return target == ErrInvalid }

// Unwrap returns the errors of the invalid messages.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Invalid))
	for i := range e.Invalid {
		errs[i] = e.Invalid[i].Err
	}
	return errs
}
