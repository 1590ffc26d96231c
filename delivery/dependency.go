package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// outageMost is the longest wait of an outage.
const outageMost = 30 * time.Second

// outage knows whether a dependency fails, and for how long to leave it alone
// then. It tells the log when that begins and ends, and the gauge.
type outage struct {
	dependency string
	up         metrics.Gauge
	logger     *slog.Logger
	most       time.Duration // the longest wait
	well       atomic.Bool   // it answered last

	mu       sync.Mutex
	failures int
	last     error
	until    time.Time
}

func newOutage(dependency string, recorder metrics.Recorder, logger *slog.Logger) *outage {
	return &outage{
		dependency: dependency,
		up:         recorder.Gauge(metrics.DependencyUp, metrics.LabelDependency, dependency),
		logger:     logger,
		most:       outageMost,
	}
}

// failed notes a failure.
func (o *outage) failed(ctx context.Context, err error) {
	o.mu.Lock()
	o.well.Store(false)
	first := o.failures == 0
	o.until = time.Now().Add(backoff(o.failures, o.most))
	o.failures++
	o.last = err
	o.mu.Unlock()
	o.up.Set(0)
	if first {
		o.logger.LogAttrs(ctx, slog.LevelWarn, "dependency is down", slog.String("dependency", o.dependency), slog.Any("error", err))
	}
}

// answered notes that the dependency is well.
func (o *outage) answered(ctx context.Context) {
	if o.well.Load() {
		return // every message asks
	}
	o.mu.Lock()
	failures := o.failures
	o.failures, o.last, o.until = 0, nil, time.Time{}
	o.well.Store(true)
	o.mu.Unlock()
	o.up.Set(1)
	if failures > 0 {
		o.logger.LogAttrs(ctx, slog.LevelInfo, "dependency is back", slog.String("dependency", o.dependency), slog.Int("failures", failures))
	}
}

// over is when to ask the dependency again, zero when it is well.
func (o *outage) over() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.until
}

// err is the last failure, nil when the dependency is well.
func (o *outage) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		return nil
	}
	return fmt.Errorf("delivery: %s: %w", o.dependency, o.last)
}

// settleTimeout bounds one try of one step that makes something durable.
const settleTimeout = 10 * time.Second

// backoff is the wait before try n, from 0, of something that failed: it doubles
// from 0.1 s to most, less up to half of it at random, so that many that wait for
// the same thing spread out.
func backoff(n int, most time.Duration) time.Duration {
	return retry.Exponential{Base: 100 * time.Millisecond, Max: most, Jitter: retry.JitterEqual}.Delay(n)
}
