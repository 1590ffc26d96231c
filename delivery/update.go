package delivery

import (
	"errors"
	"fmt"
	"time"
)

// Update says what has become of a stored message. Record.Apply says what it
// changes.
type Update struct {
	// ID is the message's.
	ID string
	// Status is what the message becomes.
	Status Status
	// Queue is the queue that the message belongs to from then on. Empty: the one
	// that it belonged to before.
	Queue string
	// Generation and RetryCount are those of the envelope that the update is about,
	// with the failure counted if there is one. They keep a late update from undoing
	// a newer one. They are not looked at where Acknowledged is set or Status is
	// StatusCancelled.
	Generation int
	RetryCount int
	// At is when it happened. Required.
	At time.Time
	// DueAt is when a RetryWorker has to see to the message: when to try again,
	// until when the acknowledgment is awaited, when a claim ends. Zero: never.
	DueAt time.Time
	// ClaimedBy is the token of whoever sees to the message until DueAt. Empty:
	// nobody does.
	ClaimedBy string
	// OnlyIfClaimedBy makes the update late unless the record is still claimed by
	// this token. Empty: it does not matter who has claimed it.
	OnlyIfClaimedBy string
	// OnlyIfWaiting makes the update late unless the record is retrying and nobody has
	// claimed it. One whose DueAt is no later than the update's stays as it is, which is
	// no error. Status is StatusRetrying then, and Failure nil.
	OnlyIfWaiting bool
	// Failure is the attempt that failed, nil when none did.
	Failure *Failure
	// DeadLetterID goes with StatusFailed.
	DeadLetterID string
	// Acknowledged says that the update is the end user's acknowledgment. Status is
	// StatusDelivered or StatusRead then.
	Acknowledged bool
}

// Validate reports everything that no store can work with, joined. Each fault is
// ErrInvalid.
func (u *Update) Validate() error {
	var faults []error
	fault := func(field, problem string) {
		faults = append(faults, &InvalidError{Field: "Update." + field, Problem: problem})
	}
	if u.ID == "" {
		fault("ID", "is empty")
	}
	if !u.Status.Valid() {
		fault("Status", fmt.Sprintf("is %.32q, want one of the statuses", string(u.Status)))
	}
	if u.At.IsZero() {
		fault("At", "is zero")
	}
	if u.Generation < 0 || u.RetryCount < 0 {
		fault("Generation, RetryCount", fmt.Sprintf("are %d and %d, want at least 0", u.Generation, u.RetryCount))
	}
	if u.Acknowledged && u.Status != StatusDelivered && u.Status != StatusRead {
		fault("Acknowledged", "is set, but Status is neither delivered nor read")
	}
	if u.OnlyIfWaiting && (u.Status != StatusRetrying || u.Failure != nil) {
		fault("OnlyIfWaiting", "is set, but Status is not retrying, or there is a Failure")
	}
	if u.Status == StatusRetrying && u.DueAt.IsZero() {
		fault("DueAt", "is zero, but Status is retrying")
	}
	return errors.Join(faults...)
}
