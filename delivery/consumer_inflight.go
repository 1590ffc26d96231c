package delivery

import (
	"errors"
	"sync"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
)

// job is one incoming on its way through the pipeline.
type job struct {
	incoming Incoming
	now      time.Time // as the clock was read last: that costs more than many a step
	envelope *Envelope // nil until decoded

	// What it holds while it runs.
	claim  *idempotency.Claim
	permit breaker.Permit
	lease  lease

	// Asked ahead of its turn, with this answer; nil goes with a claim.
	asked  bool
	answer error

	// What was decided, and how far that has got.
	verdict verdict
	homed   bool // the message's next home is durable
	marked  bool // the idempotency store knows
	noted   bool // the message store knows

	marking deadlineContext // of the first try of the mark, to spare an allocation

	returns int // how often it came back because its key was busy

	// In ordered mode, while it is under way or in line.
	recipient string
	failing   time.Time // since when it has held up its recipient
}

// tick brings now up to date. It reads the monotonic clock only, at half the price
// of time.Now, which took the wall clock when the job was opened.
func (j *job) tick() time.Time {
	j.now = j.now.Add(time.Since(j.now))
	return j.now
}

// id is for the log.
func (j *job) id() string {
	if j.envelope == nil {
		return ""
	}
	return j.envelope.ID
}

// lease tells the handler that runs under a claim when it is lost. Its zero value
// is that of a job without a claim.
type lease struct {
	mu      sync.Mutex
	lost    bool
	running *deadlineContext
}

// ended is for the guard to call.
func (l *lease) ended(cause error) {
	if !errors.Is(cause, idempotency.ErrLost) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
	if l.running != nil {
		l.running.abort(cause)
	}
}

// run says which handler's context, or nil, to abort.
func (l *lease) run(ctx *deadlineContext) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = ctx
	if l.lost && ctx != nil {
		ctx.abort(idempotency.ErrLost)
	}
}

func (l *lease) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// renewed forgets a loss: the job is about to claim anew.
func (l *lease) renewed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = false
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
	// done says of a duplicate that its message is done for good.
	done bool
	// at is when it was decided, and the same however often it is tried to carry
	// it out.
	at time.Time
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
