package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
)

// inflight is one message in hand: its receipt, and what the consumer holds for
// it on its way through the pipeline.
type inflight struct {
	incoming Incoming
	envelope *Envelope // nil until decoded
	came     int       // the attempt that it was sent for, from 0: more may have failed in hand
	now      time.Time // as the clock was read last: that costs more than many a step

	// What it holds while it runs.
	key    idempotency.Key // that claim is on
	claim  *idempotency.Claim
	unsure bool // whether claim was released: the store did not answer
	permit breaker.Permit
	lease  lease
	start  *idempotency.Start // kept until it comes to an end; nil: it is not counted
	starts int                // the number of start

	redeliveries int      // how often it was delivered before, as the transport knows
	suspected    bool     // of ending the process, by that
	suspect      *suspect // its place among the suspects; nil: none

	running    *runningHandler // of the worker that has it
	busy       int             // how often its key was found busy
	effective  bool            // the handler has succeeded
	settlement settlement

	// In ordered mode, while it is under way or in line.
	recipient string
	failing   time.Time // since when it has held up its recipient
	held      time.Time // since when it has been held, now and again
}

// forget lets go of what a message holds that is settled or given back: all that
// were received together share their memory. A store may hold on to the settlement's
// context, which stays.
func (m *inflight) forget() {
	m.incoming, m.envelope, m.claim, m.start = nil, nil, nil, nil
	m.key = idempotency.Key{}
	m.permit, m.settlement.plan = breaker.Permit{}, plan{}
}

// tick brings now up to date. It reads the monotonic clock only, at half the price
// of time.Now, which took the wall clock when the message was decoded.
func (m *inflight) tick() time.Time {
	m.now = m.now.Add(time.Since(m.now))
	return m.now
}

// id is for the log.
func (m *inflight) id() string {
	if m.envelope == nil {
		return ""
	}
	return m.envelope.ID
}

// isStale says that the message comes again, whatever is done with this receipt.
func (m *inflight) isStale() bool {
	incoming, able := m.incoming.(StaleTeller)
	return able && incoming.Stale()
}

// priority is the level that it was queued at.
func (m *inflight) priority() Priority { return m.incoming.Priority() }

// attempt is the number of the attempt that runs or ran last, from 1.
func (m *inflight) attempt() int { return m.envelope.Attempt + 1 }

// release lets go of the claim, so that others need not wait for its lease. Copies of
// earlier attempts than the one that it was sent for stay stale. After an error it is to
// be tried again before the message is claimed anew: until then the lease goes on.
func (m *inflight) release(ctx context.Context) error {
	if m.claim == nil {
		return nil
	}
	limited := within(context.WithoutCancel(ctx), time.Now(), settleTimeout)
	defer limited.end()
	err := guarded(func() error {
		if m.came > 0 {
			return m.claim.Schedule(limited, m.came, 0)
		}
		return m.claim.Release(limited)
	})
	if err != nil && !errors.Is(err, idempotency.ErrLost) && !errors.Is(err, idempotency.ErrSettled) {
		m.unsure = true
		return err
	}
	m.claim, m.unsure = nil, false
	return nil
}

// lease tells the handler that runs under a claim when it is lost. Its zero value
// is that of a message without a claim.
type lease struct {
	mu      sync.Mutex
	lost    bool
	running *lazyContext
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
func (l *lease) run(ctx *lazyContext) {
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

// renewed forgets a loss: the message is about to be claimed anew.
func (l *lease) renewed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = false
}
