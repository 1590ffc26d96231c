package delivery

import (
	"time"

	"github.com/esh3artech/barid/retry"
)

// Record is a stored message: the Message, and what has become of it.
type Record struct {
	Message
	Progress
}

// Progress is what has become of a message. Times are UTC, in whole
// microseconds.
type Progress struct {
	// Queue is the name of the queue that the message belongs to: whoever claims
	// the records of one queue never gets those of another.
	Queue  string `json:"queue"`
	Status Status `json:"status"`
	// Generation is 0, plus 1 for each replay from the dead letters.
	Generation int `json:"generation"`
	// RetryCount counts the attempts of this generation that failed and count.
	RetryCount int `json:"retry_count"`
	// History holds the last failures, oldest first, at most MaxHistory.
	History []Failure `json:"history,omitempty"`
	// NextRetryAt is set while Status is StatusRetrying.
	NextRetryAt time.Time `json:"next_retry_at,omitzero"`
	// LastRetryAt is when an attempt failed last.
	LastRetryAt time.Time `json:"last_retry_at,omitzero"`
	// SentAt is when the handler was done, of a message whose acknowledgment is
	// awaited.
	SentAt time.Time `json:"sent_at,omitzero"`
	// DeliveredAt is when the message was delivered, or acknowledged as delivered.
	DeliveredAt time.Time `json:"delivered_at,omitzero"`
	// ReadAt is when the end user acknowledged to have seen the message.
	ReadAt time.Time `json:"read_at,omitzero"`
	// AckDeadline is until when the end user's acknowledgment is awaited, set
	// while Status is StatusSent.
	AckDeadline time.Time `json:"ack_deadline,omitzero"`
	// DeadLetterID is that of the last dead letter the message became.
	DeadLetterID string `json:"dead_letter_id,omitempty"`
	// DueAt is when a RetryWorker has to see to the message: to send it, or to
	// count an acknowledgment that did not come. Zero: never.
	DueAt time.Time `json:"due_at,omitzero"`
	// ClaimedBy is the token of the publisher or worker that sees to the message
	// until DueAt, after which another worker may. Empty: nobody does.
	ClaimedBy string `json:"claimed_by,omitempty"`
	// UpdatedAt is when the record was saved or changed last.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// FailureReason is the last failure's text, empty if there was none.
func (p Progress) FailureReason() string {
	if len(p.History) == 0 {
		return ""
	}
	return p.History[len(p.History)-1].Error
}

// CanRetry says whether policy allows another attempt after those that failed,
// counting one that fails now. It is false for a nil policy, and when the status
// is final.
func (p Progress) CanRetry(policy retry.Policy) bool {
	return policy != nil && !p.Status.Final() && policy.CanRetry(p.RetryCount)
}

// scheduleRetry is the update by which one more attempt, which failed now with
// cause, is counted, and the next one scheduled after delay.
func (r *Record) scheduleRetry(now time.Time, delay time.Duration, cause error) Update {
	update := r.failedUpdate(StatusRetrying, now, cause)
	update.DueAt = now.Add(delay)
	update.RetryCount++
	return update
}

// fail is the update by which one more attempt, which failed now with cause, is
// counted, and the message given up.
func (r *Record) fail(now time.Time, cause error) Update {
	update := r.failedUpdate(StatusFailed, now, cause)
	update.RetryCount++
	return update
}

// failUnsent is the update by which a message is given up that can't be sent, for
// cause. No attempt was made, and none is counted.
func (r *Record) failUnsent(now time.Time, cause error) Update {
	return r.failedUpdate(StatusFailed, now, cause)
}

func (r *Record) failedUpdate(status Status, now time.Time, cause error) Update {
	return Update{
		ID:         r.ID,
		Status:     status,
		Generation: r.Generation,
		RetryCount: r.RetryCount,
		At:         now,
		Failure:    &Failure{At: now, Attempt: r.RetryCount + 1, Error: shorten(textOf(cause))},
	}
}

// Envelope is the message as it goes to the transport for its next attempt.
func (r *Record) Envelope() Envelope {
	return Envelope{Message: r.Message, Attempt: r.RetryCount, Generation: r.Generation, History: r.History, recorded: true}
}

// Apply changes r by the update, or says why it does not: then r is as it was. It
// is what Store.Update does to each record.
//
// An update of an earlier generation, or of fewer failed attempts, is late:
// *LateError. So is one that the status does not allow, because it leads back, and
// one by a worker that has lost the claim (Update.OnlyIfClaimedBy), or of a message
// that does not wait any more (Update.OnlyIfWaiting). A message that
// is claimed can't be cancelled: *LateError.
//
// The same update a second time changes nothing and is no error. There is one
// exception: whoever has claimed a queued message passes the claim on by an
// update that it is queued.
//
// An end user's acknowledgment (Update.Acknowledged) applies whatever the attempt.
// Of a message that was cancelled, is a duplicate, or was given up without ever
// having been sent, it is ErrNotAwaited.
func (r *Record) Apply(u Update) error {
	switch r.judge(&u) {
	case late:
		return &LateError{ID: r.ID, Status: r.Status, Generation: r.Generation, RetryCount: r.RetryCount}
	case notAwaited:
		return ErrNotAwaited
	case known:
		return nil
	case applies:
	}
	if !u.Acknowledged && u.Status != StatusCancelled {
		r.Generation, r.RetryCount = u.Generation, u.RetryCount
	}
	if u.Queue != "" {
		r.Queue = u.Queue
	}
	if u.Failure != nil {
		r.History = appendFailure(r.History, *u.Failure)
		r.LastRetryAt = u.Failure.At
	}
	r.Status, r.UpdatedAt = u.Status, u.At
	r.DueAt, r.ClaimedBy = u.DueAt, u.ClaimedBy
	r.NextRetryAt, r.AckDeadline = time.Time{}, time.Time{}
	switch u.Status {
	case StatusRetrying:
		r.NextRetryAt = u.DueAt
	case StatusSent:
		r.SentAt, r.AckDeadline = u.At, u.DueAt
	case StatusDelivered:
		r.DeliveredAt = u.At
	case StatusRead:
		r.ReadAt = u.At
		if r.DeliveredAt.IsZero() {
			r.DeliveredAt = u.At
		}
	case StatusFailed:
		r.DeadLetterID = u.DeadLetterID
	default:
	}
	return nil
}

// effect is what an update does to a record.
type effect int

const (
	applies effect = iota
	known          // changes nothing
	late
	notAwaited
)

func (r *Record) judge(u *Update) effect {
	if u.OnlyIfClaimedBy != "" && u.OnlyIfClaimedBy != r.ClaimedBy {
		return late
	}
	if u.OnlyIfWaiting && (r.Status != StatusRetrying || r.ClaimedBy != "") {
		return late
	}
	switch {
	case u.Acknowledged:
		return r.judgeAcknowledgment(u)
	case u.Status == StatusCancelled:
		return r.judgeCancellation(u)
	case u.Generation > r.Generation:
		if r.Status.Final() {
			return late
		}
		return applies
	case u.Generation < r.Generation || u.RetryCount < r.RetryCount:
		return late
	case u.OnlyIfWaiting && !u.DueAt.Before(r.DueAt):
		return known
	case u.RetryCount > r.RetryCount:
		if r.Status == StatusQueued && u.Status == StatusQueued {
			return applies // the retry waits in the transport
		}
	case u.Status == StatusQueued && r.Status == StatusQueued && u.OnlyIfClaimedBy != "":
		return applies // the claim is passed on, or ends
	case u.Status == r.Status && (u.Status != StatusRetrying || u.Failure != nil):
		return known
	case u.Status == StatusRetrying && u.Failure != nil:
		return late // this failure was counted before, and its retry sent
	}
	if r.Status == StatusFailed || !r.Status.canBecome(u.Status) {
		return late
	}
	return applies
}

func (r *Record) judgeAcknowledgment(u *Update) effect {
	switch {
	case r.Status == u.Status || r.Status == StatusRead:
		return known
	case r.Status == StatusCancelled, r.Status == StatusDuplicate, r.Status == StatusFailed && r.SentAt.IsZero():
		return notAwaited
	}
	return applies
}

func (r *Record) judgeCancellation(u *Update) effect {
	switch {
	case r.Status == StatusCancelled:
		return known
	case r.ClaimedBy != "" && r.DueAt.After(u.At), !r.Status.canBecome(StatusCancelled):
		return late
	}
	return applies
}

// newRecord is the record of a message of queue that is being saved.
func newRecord(envelope *Envelope, queue string, now time.Time) Record {
	return Record{Message: envelope.Message, Progress: Progress{
		Queue:      queue,
		Status:     StatusPending,
		Generation: envelope.Generation,
		RetryCount: envelope.Attempt,
		History:    envelope.History,
		UpdatedAt:  now,
	}}
}

// microseconds is a time as stores keep it.
func microseconds(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }
