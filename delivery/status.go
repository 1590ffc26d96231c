package delivery

import "slices"

// Status is where a message stands. It is stored as its text.
type Status string

// The statuses.
const (
	StatusPending   Status = "pending"   // saved, not yet confirmed by the transport
	StatusQueued    Status = "queued"    // confirmed by the transport
	StatusRetrying  Status = "retrying"  // an attempt failed, or was put off; the next one has a time
	StatusSent      Status = "sent"      // the handler is done; the end user's acknowledgment is awaited
	StatusDelivered Status = "delivered" // done, or acknowledged by the end user
	StatusRead      Status = "read"      // seen by the end user
	StatusFailed    Status = "failed"    // a dead letter
	StatusCancelled Status = "cancelled" // withdrawn before it was sent
	StatusDuplicate Status = "duplicate" // not handled: another message with its idempotency key was, or is about to be
)

// transitions lists what each status may become within a generation. Updates can
// arrive out of order: a handler may be done before its publisher has recorded the
// transport's confirm. So stages may be skipped forwards; none leads back. A later
// generation, which a replay begins, may start from any status that is not final.
var transitions = map[Status][]Status{
	StatusPending:   {StatusQueued, StatusRetrying, StatusSent, StatusDelivered, StatusRead, StatusFailed, StatusCancelled, StatusDuplicate},
	StatusQueued:    {StatusRetrying, StatusSent, StatusDelivered, StatusRead, StatusFailed, StatusDuplicate},
	StatusRetrying:  {StatusQueued, StatusRetrying, StatusSent, StatusDelivered, StatusRead, StatusFailed, StatusCancelled, StatusDuplicate},
	StatusSent:      {StatusRetrying, StatusDelivered, StatusRead, StatusFailed},
	StatusFailed:    {StatusDelivered, StatusRead},
	StatusDelivered: {StatusRead},
	StatusRead:      nil,
	StatusCancelled: nil,
	StatusDuplicate: nil,
}

// Statuses lists every status, in the order of a message's life.
func Statuses() [9]Status {
	return [9]Status{
		StatusPending, StatusQueued, StatusRetrying, StatusSent,
		StatusDelivered, StatusRead, StatusFailed, StatusCancelled, StatusDuplicate,
	}
}

// Valid says whether s is one of the statuses.
func (s Status) Valid() bool {
	_, known := transitions[s]
	return known
}

// Final says whether nothing more is expected to happen: the message is delivered,
// read, cancelled or a duplicate.
func (s Status) Final() bool {
	return s == StatusDelivered || s == StatusRead || s == StatusCancelled || s == StatusDuplicate
}

// canBecome says whether an update from s to next moves the message forward. An
// update that does not is late.
func (s Status) canBecome(next Status) bool {
	return slices.Contains(transitions[s], next)
}
