package delivery

import (
	"context"
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
	if err := p.validator.checkSize(len(messages)); err != nil {
		return BatchResult{}, err
	}
	begin := time.Now()
	batch := envelopesOf(messages, begin)
	if err := p.validator.acceptTogether(batch); err != nil {
		return BatchResult{}, err
	}
	errs := p.sender.publish(ctx, batch, begin)
	p.metrics.published(batch, errs, time.Since(begin))
	return newBatchResult(batch, errs), publishError(batch, errs)
}

// newBatchResult counts errs, which has one for each of the batch or is nil.
func newBatchResult(batch []Envelope, errs []error) BatchResult {
	result := BatchResult{Total: len(batch), Results: make([]Result, len(batch))}
	for i := range batch {
		result.Results[i].ID = batch[i].ID
		if errs != nil {
			result.Results[i].Err = errs[i]
		}
		if result.Results[i].Err == nil {
			result.Succeeded++
		} else {
			result.Failed++
		}
	}
	return result
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
