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

// dependency knows whether something that is needed fails, and for how long to
// leave it alone then. It tells the log when that begins and ends, and the gauge.
type dependency struct {
	name   string
	up     func() metrics.Gauge // exported once it is known whether it is up
	logger *slog.Logger
	most   time.Duration // the longest wait
	well   atomic.Bool   // it answered last
	asked  atomic.Bool   // since watch looked last

	exporting sync.Mutex

	mu       sync.Mutex
	failures int
	last     error
	until    time.Time
}

func newDependency(name string, recorder metrics.Recorder, logger *slog.Logger) *dependency {
	return &dependency{
		name:   name,
		up:     sync.OnceValue(func() metrics.Gauge { return recorder.Gauge(metrics.DependencyUp, metrics.LabelDependency, name) }),
		logger: logger,
		most:   outageMost,
	}
}

// failed notes a failure.
func (d *dependency) failed(ctx context.Context, err error) {
	d.asked.Store(true)
	d.mu.Lock()
	d.well.Store(false)
	first := d.failures == 0
	d.until = time.Now().Add(backoff(d.failures, d.most))
	d.failures++
	d.last = err
	d.mu.Unlock()
	d.export()
	if first {
		d.logger.LogAttrs(ctx, slog.LevelWarn, "dependency is down", slog.String("dependency", d.name), errorAttr(err))
	}
}

// answered notes that the dependency is well.
func (d *dependency) answered(ctx context.Context) {
	if !d.asked.Load() {
		d.asked.Store(true)
	}
	if d.well.Load() {
		return // every message asks
	}
	d.mu.Lock()
	failures := d.failures
	d.failures, d.last, d.until = 0, nil, time.Time{}
	d.well.Store(true)
	d.mu.Unlock()
	d.export()
	if failures > 0 {
		d.logger.LogAttrs(ctx, slog.LevelInfo, "dependency is back", slog.String("dependency", d.name), slog.Int("failures", failures))
	}
}

// pingInterval is how often watch looks whether to ping.
const pingInterval = 5 * time.Second

// watch pings what nobody has asked for a while, so that the gauge tells the truth
// without traffic, until ctx ends. What others found to fail though it answers a ping
// is left to them.
func (d *dependency) watch(ctx context.Context, pinger Pinger) {
	silent := false // it did not answer the last ping
	for retry.Wait(ctx.Done(), max(pingInterval, time.Until(d.over()))) {
		if d.asked.Swap(false) && !silent {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, pingInterval)
		err := guarded(func() error { return pinger.Ping(limited) })
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			silent = true
			d.failed(ctx, err)
		case silent || d.err() == nil:
			silent = false
			d.answered(ctx)
		}
	}
}

// export has the gauge say whether the dependency is well. Of several calls at once
// the last one says what is true after all of them.
func (d *dependency) export() {
	d.exporting.Lock()
	defer d.exporting.Unlock()
	up := 0.0
	if d.well.Load() {
		up = 1
	}
	d.up().Set(up)
}

// over is when to ask the dependency again, zero when it is well.
func (d *dependency) over() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until
}

// err is the last failure, nil when the dependency is well.
func (d *dependency) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		return nil
	}
	return fmt.Errorf("delivery: %s: %w", d.name, d.last)
}

// settleTimeout bounds one try of one step that makes something durable.
const settleTimeout = 10 * time.Second

// backoff is the wait before try n, from 0, of something that failed: it doubles
// from 0.1 s to most, less up to half of it at random, so that many that wait for
// the same thing spread out.
func backoff(n int, most time.Duration) time.Duration {
	return retry.Exponential{Base: 100 * time.Millisecond, Max: most, Jitter: retry.JitterEqual}.Delay(n)
}
