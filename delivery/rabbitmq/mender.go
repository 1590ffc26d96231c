package rabbitmq

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// futileFor is for how long returned messages are no reason to declare the topology
// again, after that has not helped.
const futileFor = 5 * time.Second

// mendDelay leaves the broker the time to cancel the consumers of a deleted queue. If
// the queue is there again before that, a consumer may be left on neither of the two,
// until the next strandedCheck.
const mendDelay = 250 * time.Millisecond

// mender has the topology declared again when the broker returns a message, because
// somebody has deleted its queue or binding.
type mender struct {
	rounds  atomic.Int64 // how often the topology was declared again, or looked at
	renewed broadcast    // rounds has grown
	futile  atomic.Int64 // until then it does not help, in Unix nanoseconds
}

// hopeless says whether it has not helped lately.
func (m *mender) hopeless() bool { return time.Now().UnixNano() < m.futile.Load() }

// failed says that it has not helped.
func (m *mender) failed() { m.futile.Store(time.Now().Add(futileFor).UnixNano()) }

// await waits for that round, or until ctx ends, or the transport's life.
func (m *mender) await(ctx, life context.Context, round int64) error {
	for {
		renewed := m.renewed.listen()
		if m.rounds.Load() >= round {
			return nil
		}
		select {
		case <-renewed:
		case <-life.Done():
			return delivery.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// renew declares the topology again if it has expired, or if there is a need. What can't
// be declared now stays expired.
func (t *Transport) renew(ctx context.Context, needed bool) {
	if needed {
		t.topology.expire()
	}
	needed = needed || t.topology.expired.Load()
	_, err := await(ctx, t, func() (none struct{}, err error) {
		return none, t.topology.renew(t.life, func(f func(*connection) error) error { return t.control(renewTimeout, f) })
	})
	switch {
	case ctx.Err() != nil, errors.Is(err, delivery.ErrClosed):
	case err != nil:
		t.config.Logger.Log(ctx, levelOf(err), "topology not declared", "error", err)
	case needed:
		t.mender.rounds.Add(1)
		t.mender.renewed.notify()
	}
}
