package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
)

const (
	// minRedeliveries is how often a message was delivered before, at least, that is
	// a suspect by the transport's count alone: that counts lost connections and
	// orderly ends as well.
	minRedeliveries = 3
	// maxSuspicions is how often, where only the envelope remembers it, a message is
	// suspected before it is given up.
	maxSuspicions = 2
)

// crashes counts how often a message was started without coming to an end, so that
// one whose handler ends the process is given up at last, see
// ConsumerConfig.MaxCrashes.
//
// Handlers run side by side, so the end of a process makes suspects of several
// messages. The last start before the limit is therefore made while no other suspect
// runs.
//
// With an idempotency store that outlives the process, each start of a message that
// was delivered before is kept there, and the count is exact. Otherwise there is the
// transport's count of deliveries, which says little: all that was in hand when a
// process ended was delivered. It only makes a suspect. Suspects run one after
// another, so the first one that comes again after the end of a process is most likely
// the one that ran. That one, and no other of the same run, is sent again with one
// suspicion more in its envelope. To be sent again would put it out of order, so in
// ordered mode nothing is counted without a store.
type crashes struct {
	limit    int                // 0: none
	guard    *idempotency.Guard // nil unless its store outlives the process
	failOpen bool
	ordered  bool
	logger   *slog.Logger
	suspects *suspects
	blamed   atomic.Bool // a suspicion was added in this run
}

func newCrashes(c *Consumer, suspects *suspects) *crashes {
	guard := c.guard
	if _, local := abilityOf[*idempotency.Memory](c.config.Idempotency); local {
		guard = nil
	}
	return &crashes{
		limit:    max(0, c.config.MaxCrashes),
		guard:    guard,
		failOpen: c.config.FailOpen,
		ordered:  c.config.Ordered,
		logger:   c.config.Logger,
		suspects: suspects,
	}
}

// suspectFrom is from how many redeliveries on the transport's count makes a suspect.
func (c *crashes) suspectFrom() int { return max(minRedeliveries, c.limit-maxSuspicions) }

// arrived reads what the transport knows of a message before it gets in the queue.
func (c *crashes) arrived(m *inflight) {
	if teller, ok := m.incoming.(RedeliveryTeller); ok && c.limit > 0 {
		var crashes int
		m.redeliveries, crashes = teller.Redeliveries()
		m.suspected = c.guard == nil && !c.ordered && (crashes > 0 || m.redeliveries >= c.suspectFrom())
	}
}

// start is called before a message is handled. It counts the start of one that was
// delivered before, and has a suspect wait for its turn, which lasts until the message
// is settled or held.
func (c *crashes) start(ctx context.Context, m *inflight) outcome {
	switch {
	case c.limit == 0:
	case c.guard == nil:
		if m.suspect != nil {
			return c.awaitTurn(ctx, m)
		}
	case m.claim == nil: // the store is down, and the consumer fails open
	case m.redeliveries > 0 || m.envelope.Crashes > 0:
		return c.count(ctx, m)
	}
	return outcome{}
}

func (c *crashes) awaitTurn(ctx context.Context, m *inflight) outcome {
	if err := c.suspects.await(ctx, m); err != nil {
		return outcome{kind: outcomeAbandoned, err: err}
	}
	return outcome{}
}

// count keeps the start of a message, under the first number that is not kept yet.
func (c *crashes) count(ctx context.Context, m *inflight) outcome {
	for n := max(m.starts, 1); n <= c.limit; n++ {
		if n == c.limit {
			c.suspects.enter(m)
			if o := c.awaitTurn(ctx, m); o.kind != undecided {
				return o
			}
		}
		if m.start != nil {
			return outcome{} // of an earlier attempt, which failed in hand
		}
		kept, err := c.keep(ctx, m, n)
		switch {
		case err == nil:
			m.start, m.starts = kept, n
			return outcome{}
		case errors.Is(err, idempotency.ErrBusy):
		case ctx.Err() != nil:
			return outcome{kind: outcomeAbandoned, err: err}
		case c.failOpen:
			return outcome{}
		default:
			return outcome{kind: outcomeKeysDown, err: err}
		}
	}
	return c.giveUp(m, c.limit)
}

func (c *crashes) keep(ctx context.Context, m *inflight, n int) (kept *idempotency.Start, err error) {
	limited := within(ctx, m.tick(), settleTimeout)
	defer limited.end()
	err = guarded(func() error {
		kept, err = c.guard.Start(limited, m.key, m.envelope.Attempt, n)
		return err
	})
	return kept, err
}

// blame is called when nothing is left that could keep a message from being handled.
// It says what becomes of one that has to be taken for what ended the last process.
func (c *crashes) blame(m *inflight) outcome {
	if !m.suspected || m.redeliveries == 0 || !c.blamed.CompareAndSwap(false, true) {
		return outcome{}
	}
	m.permit.Done(breaker.Abandoned)
	if m.envelope.Crashes >= maxSuspicions {
		return c.giveUp(m, c.suspectFrom()+maxSuspicions)
	}
	next := *m.envelope
	next.Crashes++
	c.logger.LogAttrs(context.Background(), slog.LevelWarn, "message may have ended its process, sent again",
		slog.String("message_id", m.id()), slog.Int("redeliveries", m.redeliveries), slog.Int("suspicions", next.Crashes))
	return outcome{kind: outcomeSuspected, next: &next}
}

func (c *crashes) giveUp(m *inflight, starts int) outcome {
	return outcome{
		kind: outcomeGivenUp, reason: ReasonCrashed, next: m.envelope,
		err: fmt.Errorf("delivery: started at least %d times without coming to an end, its handler may end the process", starts),
	}
}

// forgetStart is for a message that is given back in order, or does not run, or ran
// without that counting. If it fails the start is still kept: one too many is counted,
// unless it can be forgotten later on.
func (m *inflight) forgetStart(ctx context.Context) {
	if m.start == nil {
		return
	}
	limited := within(context.WithoutCancel(ctx), time.Now(), settleTimeout)
	defer limited.end()
	_ = guarded(func() error { return m.releaseStart(limited) })
}

func (m *inflight) releaseStart(ctx context.Context) error {
	if m.start == nil {
		return nil
	}
	if err := m.start.Release(ctx); err != nil {
		return err
	}
	m.start, m.starts = nil, 0
	return nil
}
