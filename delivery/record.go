package delivery

import (
	"time"

	"github.com/esh3artech/barid/retry"
)

// Record is a stored message: the Message with what has become of it.
type Record struct {
	Message
	Progress
}

// Progress is what has become of a message. Times are UTC, in whole
// microseconds.
type Progress struct {
	Status Status
	// Generation is 0, plus 1 for each replay from the dead letters.
	Generation int
	// RetryCount counts the attempts of this generation that failed and count.
	RetryCount int
	// History holds the last failures, oldest first, at most MaxHistory.
	History []Failure
	// NextRetryAt is set while Status is StatusRetrying.
	NextRetryAt time.Time
	// LastRetryAt is when an attempt failed last.
	LastRetryAt time.Time
	SentAt      time.Time
	DeliveredAt time.Time
	ReadAt      time.Time
	// AckDeadline is until when the end user's acknowledgment is awaited, set
	// while Status is StatusSent.
	AckDeadline time.Time
	// DeadLetterID is that of the last dead letter the message became.
	DeadLetterID string
	// DueAt is when a RetryWorker has to see to the message: to send it, or to
	// note that nobody acknowledged it. Zero: never.
	DueAt time.Time
	// ClaimedBy is who sees to the message until DueAt, after which somebody else
	// may. Empty: nobody.
	ClaimedBy string
	// UpdatedAt is when the record was saved or changed last.
	UpdatedAt time.Time
}

// FailureReason is the last failure's text, empty if there was none.
func (p *Progress) FailureReason() string {
	if len(p.History) == 0 {
		return ""
	}
	return p.History[len(p.History)-1].Error
}

// CanRetry says whether policy allows another attempt after those that failed,
// counting one that fails now.
func (p *Progress) CanRetry(policy retry.Policy) bool {
	return policy != nil && !p.Status.Final() && policy.CanRetry(p.RetryCount)
}

// ScheduleRetry is the update by which one more attempt, which failed now with
// cause, is counted, and the next one scheduled with the delay that policy says,
// or at once without a policy. Whether there may be one CanRetry says.
func (r *Record) ScheduleRetry(now time.Time, policy retry.Policy, cause error) Update {
	due := now
	if policy != nil {
		due = now.Add(policy.Delay(r.RetryCount))
	}
	return Update{
		ID:         r.ID,
		Status:     StatusRetrying,
		Generation: r.Generation,
		RetryCount: r.RetryCount + 1,
		At:         now,
		DueAt:      due,
		Failure:    r.failure(now, cause),
	}
}

// Fail is the update by which one more attempt, which failed now with cause, is
// counted, and the message given up.
func (r *Record) Fail(now time.Time, deadLetterID string, cause error) Update {
	return Update{
		ID:           r.ID,
		Status:       StatusFailed,
		Generation:   r.Generation,
		RetryCount:   r.RetryCount + 1,
		At:           now,
		Failure:      r.failure(now, cause),
		DeadLetterID: deadLetterID,
	}
}

func (r *Record) failure(now time.Time, cause error) *Failure {
	failure := &Failure{At: now, Attempt: r.RetryCount}
	if cause != nil {
		failure.Error = shorten(cause.Error())
	}
	return failure
}

// Envelope is the message as it goes to the transport for its next attempt.
func (r *Record) Envelope() Envelope {
	return Envelope{Message: r.Message, Attempt: r.RetryCount, Generation: r.Generation, History: r.History}
}

// Apply makes the update if it is news, or says why it is not: then r is as it
// was. It is what Store.Update does to each record.
//
// News of an earlier generation, or of fewer failed attempts, is late, as is
// what Status.CanBecome does not allow, or what comes from somebody who has
// lost the claim (Update.OnlyIfClaimedBy): *LateError. The same news twice is
// none, and no error, but who has claimed a queued message hands the claim on by
// telling again that it is queued. An end user's acknowledgment
// (Update.Acknowledged) is news whatever the attempt; of a message that was
// cancelled, or given up without ever having been sent, it is ErrNotAwaited. A
// message that somebody sees to can't be cancelled: *LateError.
func (r *Record) Apply(u Update) error {
	switch r.sort(&u) {
	case late:
		return &LateError{ID: r.ID, Status: r.Status, Generation: r.Generation, RetryCount: r.RetryCount}
	case notAwaited:
		return ErrNotAwaited
	case known:
		return nil
	case news:
	}
	if !u.Acknowledged && u.Status != StatusCancelled {
		r.Generation, r.RetryCount = u.Generation, u.RetryCount
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

// tidings is what an update is to a record.
type tidings int

const (
	news tidings = iota
	known
	late
	notAwaited
)

func (r *Record) sort(u *Update) tidings {
	if u.OnlyIfClaimedBy != "" && u.OnlyIfClaimedBy != r.ClaimedBy {
		return late
	}
	switch {
	case u.Acknowledged:
		return r.sortAcknowledgment(u)
	case u.Status == StatusCancelled:
		return r.sortCancellation(u)
	case u.Generation > r.Generation:
		if r.Status.Final() {
			return late
		}
		return news
	case u.Generation < r.Generation || u.RetryCount < r.RetryCount:
		return late
	case u.RetryCount > r.RetryCount:
		if r.Status == StatusQueued && u.Status == StatusQueued {
			return news // the retry waits in the transport
		}
	case u.Status == StatusQueued && r.Status == StatusQueued && u.OnlyIfClaimedBy != "":
		return news // who claimed it hands it on, or lets go
	case u.Status == r.Status && (u.Status != StatusRetrying || u.Failure != nil):
		return known
	case u.Status == StatusRetrying && u.Failure != nil:
		return late // this failure was counted before, and its retry sent
	}
	if r.Status == StatusFailed || !r.Status.CanBecome(u.Status) {
		return late
	}
	return news
}

func (r *Record) sortAcknowledgment(u *Update) tidings {
	switch {
	case r.Status == u.Status || r.Status == StatusRead:
		return known
	case r.Status == StatusCancelled, r.Status == StatusFailed && r.SentAt.IsZero():
		return notAwaited
	}
	return news
}

func (r *Record) sortCancellation(u *Update) tidings {
	switch {
	case r.Status == StatusCancelled:
		return known
	case r.ClaimedBy != "" && r.DueAt.After(u.At), !r.Status.CanBecome(StatusCancelled):
		return late
	}
	return news
}

// newRecord is a message that has just been saved.
func newRecord(envelope *Envelope, now time.Time) Record {
	return Record{Message: envelope.Message, Progress: Progress{
		Status:     StatusPending,
		Generation: envelope.Generation,
		RetryCount: envelope.Attempt,
		History:    envelope.History,
		UpdatedAt:  now,
	}}
}

// microseconds is a time as stores keep it.
func microseconds(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }
