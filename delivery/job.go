package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
)

// job is one incoming on its way through the pipeline.
type job struct {
	incoming Incoming
	received time.Time
	envelope *Envelope // nil until decoded

	// What it holds while it runs.
	ctx    context.Context // ends when the lease is lost or the drain is over
	claim  *idempotency.Claim
	permit breaker.Permit

	// What was decided, and how far that has got.
	verdict verdict
	homed   bool // the message's next home is durable
	marked  bool // the idempotency store knows

	returns int // how often it came back because its key was busy

	// In ordered mode, while it is under way or in line.
	recipient string
	failing   time.Time // since when it has held up its recipient
}

// id is for the log.
func (j *job) id() string {
	if j.envelope == nil {
		return ""
	}
	return j.envelope.ID
}

// lost says whether the lease on the message was lost.
func (j *job) lost() bool {
	return j.ctx.Err() != nil && errors.Is(context.Cause(j.ctx), idempotency.ErrLost)
}

// verdict is what the pipeline decides to do with a job.
type verdict struct {
	action action
	delay  time.Duration
	reason Reason    // of a dead letter
	next   *Envelope // what is sent or kept instead
	raw    []byte    // of a malformed message
	// letterID is the dead letter's, the same each time the put is tried.
	letterID string
	err      error // why
}

type action int

const (
	proceed   action = iota // to the next stage
	deliver                 // the effect is done
	duplicate               // the effect was done before, or is another copy's to do
	retryThen               // send next again after delay
	bury                    // dead-letter
	postpone                // send the same again after delay: no attempt was made
	hold                    // keep in hand for delay: no attempt was made
	yield                   // back to the backlog, which has been shut meanwhile
	leave                   // give back for redelivery: no attempt was made
)
