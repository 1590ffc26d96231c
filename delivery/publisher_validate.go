package delivery

import (
	"errors"
	"fmt"
)

// validator decides which messages a Publisher may send, and with which priorities.
type validator struct {
	maxBodyBytes   int
	batchSizeLimit int
	onePriority    bool
}

func newValidator(config *PublisherConfig) validator {
	return validator{maxBodyBytes: config.MaxBodyBytes, batchSizeLimit: config.BatchSizeLimit, onePriority: config.OnePriority}
}

// accept returns nil when all messages may be sent, which have the priorities then
// that they are sent with, or an error for every one.
func (v *validator) accept(batch []Envelope) []error {
	var errs []error
	for i := range batch {
		err := v.check(&batch[i].Message)
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(batch))
		}
		errs[i] = err
	}
	for i, err := range errs {
		if err == nil {
			errs[i] = ErrNotSent
		}
	}
	if errs == nil {
		v.setPriorities(batch)
	}
	return errs
}

// checkSize says whether a batch may have n messages. The error is a *BatchError.
func (v *validator) checkSize(n int) error {
	if n < 1 || n > v.batchSizeLimit {
		return &BatchError{Size: n, Limit: v.batchSizeLimit}
	}
	return nil
}

// acceptTogether is accept for a batch whose messages have IDs that differ. The error
// is a *BatchError.
func (v *validator) acceptTogether(batch []Envelope) error {
	fault := &BatchError{Size: len(batch), Limit: v.batchSizeLimit}
	places := make(map[string]int, len(batch))
	for i := range batch {
		message := &batch[i].Message
		err := v.check(message)
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
	v.setPriorities(batch)
	return nil
}

func (v *validator) check(message *Message) error {
	err := message.Validate()
	if size := len(message.Body); size > v.maxBodyBytes {
		err = errors.Join(err, &TooLargeError{Field: "Body", Size: size, Limit: v.maxBodyBytes})
	}
	return err
}

func (v *validator) setPriorities(batch []Envelope) {
	if v.onePriority {
		for i := range batch {
			batch[i].Priority = Normal
		}
	}
}
