package delivery

import "time"

// Record is a stored message: the Message with what has become of it.
type Record struct {
	Message
	Status Status
	// RetryCount counts the attempts that failed and count.
	RetryCount int
	// Generation is 0, plus 1 for each replay from the dead letters.
	Generation int
	// FailureReason is the last error's text.
	FailureReason string
	// NextRetryAt is set while Status is StatusRetrying.
	NextRetryAt time.Time
	LastRetryAt time.Time
	SentAt      time.Time
	DeliveredAt time.Time
	ReadAt      time.Time
	// AckDeadline is until when the end user's acknowledgment is awaited, set
	// while Status is StatusSent.
	AckDeadline time.Time
}
