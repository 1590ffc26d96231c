package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/retry"
)

// cancelGrace is how long a drain waits for handlers after it cancelled them.
const cancelGrace = 5 * time.Second

// pauseGrace is how long the jobs must have been held up before the transport is
// told to pause: a short hiccup is not worth the round trips.
const pauseGrace = time.Second

// depthInterval is how often the transport is asked for its depth.
const depthInterval = 5 * time.Second

// run is one Run of a Consumer: its jobs in hand and its goroutines.
//
// Everything that has a job in its hands is in workers: the workers proper, and
// a goroutine for each job that waits for something. They end when the job is
// settled or given back.
type run struct {
	*Consumer
	subscription Subscription
	backlog      *backlog
	lines        *lines // nil unless ordered
	workers      sync.WaitGroup
	handlers     atomic.Int64 // handlers running now

	// serving ends when the drain begins: what is not running is given back.
	serving context.Context
	stop    context.CancelFunc
	// paused says whether the subscription fetches no more, so that what is
	// nacked does not come straight back. Set before serving ends.
	paused bool

	awaitsBreaker atomic.Bool
	awaitsStore   atomic.Bool
	storeFailures atomic.Int32
	storeFar      atomic.Bool // the last mark took its time
	pace          pace
}

func newRun(ctx context.Context, c *Consumer) *run {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{Consumer: c, backlog: newBacklog(c.config.StarvationLimit), serving: serving, stop: stop}
	if c.config.Ordered {
		r.lines = newLines(max(1, c.config.Prefetch/2))
	}
	return r
}

// until serves until ctx ends or the subscription does, then drains.
func (r *run) until(ctx context.Context) error {
	// Handlers outlive ctx, by the time of the drain.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	for range r.config.Concurrency {
		r.workers.Go(func() { r.serve(work) })
	}
	watching, stopWatching := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() { r.watchGates(watching) })
	watchers.Go(func() { r.watchDepth(watching) })
	unwatch := r.watchBreaker()

	received := r.receive(ctx)

	stopWatching()
	watchers.Wait()
	drained := r.drain(cancel)
	unwatch()
	return errors.Join(received, drained)
}

// receive moves what arrives into the backlog, while jobs flow. It returns nil
// when ctx ends.
func (r *run) receive(ctx context.Context) error {
	for failures := 0; ; {
		if !r.awaitFlow(ctx) {
			return nil
		}
		batch, err := r.subscription.Receive(ctx)
		switch {
		case err == nil:
			failures = 0
			now := time.Now()
			block := make([]job, len(batch))
			jobs := make([]*job, len(batch))
			for i, incoming := range batch {
				block[i] = job{incoming: incoming, now: now}
				jobs[i] = &block[i]
			}
			if r.lines != nil {
				jobs = r.lines.arrive(jobs)
			}
			r.backlog.push(jobs...)
		case ctx.Err() != nil:
		case errors.Is(err, ErrClosed):
			return err
		default:
			r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "receive failed", slog.Any("error", err))
			if !retry.Wait(ctx.Done(), backoff(failures, 30*time.Second)) {
				return nil
			}
			failures++
		}
	}
}

// awaitFlow blocks while a gate is shut. It returns false when ctx ends.
func (r *run) awaitFlow(ctx context.Context) bool {
	for {
		flowing, changed := r.backlog.state()
		if flowing {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// drain ends the run: it gives back what is not running, and waits for the rest.
func (r *run) drain(cancel context.CancelCauseFunc) error {
	if pauser, ok := r.subscription.(Pauser); ok {
		ctx, done := context.WithTimeout(context.Background(), pauseGrace)
		r.paused = pauser.Pause(ctx) == nil
		done()
	}
	r.stop()
	waiting := r.backlog.end()
	if r.lines != nil {
		waiting = append(waiting, r.lines.end()...)
	}
	for _, j := range waiting {
		if j.claim == nil {
			r.giveBack(context.Background(), j)
			continue
		}
		r.workers.Go(func() { r.giveBack(context.Background(), j) }) // takes a round trip
	}
	idle := make(chan struct{})
	go func() {
		r.workers.Wait()
		close(idle)
	}()
	var abandoned error
	if !retry.Wait(idle, r.config.DrainTimeout) {
		return r.subscription.Close()
	}
	cancel(ErrShutdown)
	if retry.Wait(idle, cancelGrace) {
		abandoned = &AbandonedError{Handlers: int(r.handlers.Load())}
		r.config.Logger.LogAttrs(context.Background(), slog.LevelError, "handlers abandoned", slog.Any("error", abandoned))
	}
	return errors.Join(abandoned, r.subscription.Close())
}

// watchGates has the transport pause while jobs are held up for longer than a
// moment, so that other processes get what comes.
func (r *run) watchGates(ctx context.Context) {
	pauser, ok := r.subscription.(Pauser)
	if !ok {
		return
	}
	paused := false
	for failures := 0; ctx.Err() == nil; {
		flowing, changed := r.backlog.state()
		if paused == !flowing {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		var err error
		if flowing {
			err = pauser.Resume(ctx)
		} else {
			if !retry.Wait(changed, pauseGrace) {
				continue
			}
			err = pauser.Pause(ctx)
		}
		if err != nil {
			retry.Wait(ctx.Done(), backoff(failures, 5*time.Second))
			failures++
			continue
		}
		paused, failures = !flowing, 0
	}
}

// watchDepth keeps the gauges of what waits in the transport.
func (r *run) watchDepth(ctx context.Context) {
	depther, ok := r.transport.(Depther)
	if !ok || r.config.Metrics == nil {
		return
	}
	for {
		asking, done := context.WithTimeout(ctx, depthInterval)
		depths, err := depther.Depth(asking)
		done()
		if ctx.Err() != nil {
			return
		}
		r.metrics.transportUp(err == nil)
		for _, priority := range Priorities() {
			if err == nil {
				r.metrics.depth(priority, depths[priority])
			}
		}
		if !retry.Wait(ctx.Done(), depthInterval) {
			return
		}
	}
}

// watchBreaker counts the breaker's transitions and logs them.
func (r *run) watchBreaker() (stop func()) {
	if r.config.Breaker == nil {
		return func() {}
	}
	r.metrics.breakerState(r.config.Breaker.Name(), r.config.Breaker.State())
	return r.config.Breaker.Watch(func(change breaker.Change) {
		r.metrics.breakerChanged(change)
		severity := slog.LevelInfo
		if change.To == breaker.Open {
			severity = slog.LevelWarn
		}
		r.config.Logger.LogAttrs(context.Background(), severity, "breaker "+change.To.String(),
			slog.String("breaker", change.Name), slog.String("from", change.From.String()))
	})
}

// awaitBreaker shuts the gate until the breaker may let something through.
func (r *run) awaitBreaker() {
	r.backlog.shut(gateBreaker)
	if !r.awaitsBreaker.CompareAndSwap(false, true) {
		return
	}
	r.workers.Go(func() {
		_ = r.config.Breaker.Wait(r.serving) // an error means that the drain began
		// The flag first: whoever shuts the gate from here on waits anew.
		r.awaitsBreaker.Store(false)
		r.backlog.open(gateBreaker)
	})
}

// awaitStore shuts the gate until the idempotency store answers, or if it can't
// be asked, for a while.
func (r *run) awaitStore(ctx context.Context, err error) {
	r.backlog.shut(gateStore)
	if !r.awaitsStore.CompareAndSwap(false, true) {
		return
	}
	r.metrics.storeUp(false)
	r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "idempotency store is down, paused", slog.Any("error", err))
	r.workers.Go(func() {
		pinger, asks := r.config.Idempotency.(Pinger)
		for failures := int(r.storeFailures.Add(1)) - 1; retry.Wait(r.serving.Done(), backoff(failures, 5*time.Second)); failures++ {
			if !asks || r.ping(pinger) {
				break
			}
		}
		r.awaitsStore.Store(false)
		r.backlog.open(gateStore)
	})
}

func (r *run) ping(pinger Pinger) bool {
	ctx, cancel := context.WithTimeout(r.serving, time.Second)
	defer cancel()
	return pinger.Ping(ctx) == nil
}

// storeAnswered notes that the idempotency store is well.
func (r *run) storeAnswered() {
	if r.storeFailures.Load() != 0 {
		r.storeFailures.Store(0)
		r.metrics.storeUp(true)
		r.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "idempotency store is back")
	}
}
