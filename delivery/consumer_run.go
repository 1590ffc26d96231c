package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/retry"
)

// cancelGrace is how long a drain waits for handlers after it cancelled them.
const cancelGrace = 5 * time.Second

// consumerRun is one Run of a Consumer: it receives messages, has them processed
// and concluded, and at the end drains.
//
// Every goroutine that has a message is in workers: the workers proper, and one
// for each message that waits for something. They end when it is settled or given
// back.
type consumerRun struct {
	config       *ConsumerConfig
	transport    Transport
	subscription Subscription
	metrics      *consumerMetrics

	queue   *queue
	gates   *gates
	order   *recipientOrder
	stages  *stages
	planner *planner
	settler *settler
	workers sync.WaitGroup
	watch   *handlerWatch
	inHand  atomic.Int64 // messages that are neither settled nor given back

	// serving ends when the drain begins: what is not running is given back.
	serving context.Context
	stop    context.CancelFunc
	// paused says whether the subscription fetches no more, so that what is
	// nacked does not come straight back. Set before serving ends.
	paused bool
}

func newConsumerRun(ctx context.Context, c *Consumer) *consumerRun {
	planner := newPlanner(&c.config, c.transport)
	queue := newQueue(c.config.StarvationLimit)
	keys := newDependency("idempotency", c.metrics.recorder, c.config.Logger)
	keys.most = 5 * time.Second // what waits for it is in hand
	r := &consumerRun{
		config:    &c.config,
		transport: c.transport,
		metrics:   c.metrics,
		queue:     queue,
		gates:     newGates(queue),
		order:     newRecipientOrder(c.config.Ordered, newHolds(c.config.Prefetch)),
		stages:    newStages(c, keys, queue.suspects),
		planner:   planner,
		settler:   &settler{config: &c.config, transport: c.transport, planner: planner, metrics: c.metrics},
	}
	r.watch = newHandlerWatch(&c.config, r.stages)
	r.serving, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	return r
}

// until serves until ctx ends or the subscription does, then drains.
func (r *consumerRun) until(ctx context.Context) error {
	// Handlers outlive ctx, by the time of the drain.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	for i := range r.watch.running {
		r.workers.Go(func() { r.serve(work, &r.watch.running[i]) })
	}
	endWatch := r.watch.start(work)
	watching, stopWatching := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	if pauser, able := r.subscription.(Pauser); able {
		watchers.Go(func() { r.gates.pauseTransport(watching, pauser) })
	}
	if depther, able := r.transport.(Depther); able && r.config.Metrics != nil {
		transport := newDependency("transport", r.metrics.recorder, r.config.Logger)
		watchers.Go(func() { r.metrics.watchDepth(watching, depther, transport) })
	}
	if pinger, able := abilityOf[Pinger](r.config.Idempotency); able {
		watchers.Go(func() { r.stages.keys.watch(watching, pinger) })
	}
	unwatch := watchBreakers(r.config, r.metrics)

	received := r.receive(ctx)

	stopWatching()
	watchers.Wait()
	drained := r.drain(cancel)
	unwatch()
	endWatch()
	return errors.Join(received, drained)
}

// receive moves what arrives into the queue, while messages flow. It returns nil
// when ctx ends.
func (r *consumerRun) receive(ctx context.Context) error {
	for failures := 0; ; {
		if !r.gates.await(ctx) {
			return nil
		}
		batch, err := r.subscription.Receive(ctx)
		switch {
		case err == nil:
			failures = 0
			now := time.Now()
			block := make([]inflight, len(batch))
			messages := make([]*inflight, len(batch))
			for i, incoming := range batch {
				block[i] = inflight{incoming: incoming, now: now}
				messages[i] = &block[i]
				r.stages.crashes.arrived(messages[i])
			}
			r.inHand.Add(int64(len(batch)))
			r.queue.push(r.order.arrive(messages)...)
		case ctx.Err() != nil:
		case errors.Is(err, ErrClosed):
			return err
		default:
			r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "receive failed", errorAttr(err))
			if !retry.Wait(ctx.Done(), backoff(failures, 30*time.Second)) {
				return nil
			}
			failures++
		}
	}
}

// serve is a worker: it takes one message after the other through the pipeline.
func (r *consumerRun) serve(ctx context.Context, running *runningHandler) {
	var current *inflight
	defer func() {
		if current == nil {
			return
		}
		// The handler called runtime.Goexit, which ends this goroutine. Another
		// one takes its place, and its message.
		m := current
		r.workers.Go(func() {
			r.conclude(ctx, m, r.stages.exited(ctx, m))
			r.serve(ctx, running)
		})
	}()
	for m := r.queue.pop(); m != nil; m = r.queue.pop() {
		current, m.running = m, running
		o := r.stages.process(ctx, m)
		current = nil
		r.conclude(ctx, m, o)
	}
}

// drain ends the run: it gives back what is not running, and waits for the rest.
func (r *consumerRun) drain(cancel context.CancelCauseFunc) error {
	if pauser, ok := r.subscription.(Pauser); ok {
		ctx, done := context.WithTimeout(context.Background(), pauseGrace)
		r.paused = pauser.Pause(ctx) == nil
		done()
	}
	r.stop()
	for _, m := range append(r.queue.end(), r.order.end()...) {
		if m.claim == nil {
			r.giveBack(context.Background(), m)
			continue
		}
		r.workers.Go(func() { r.giveBack(context.Background(), m) }) // waits for the store
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
		handlers := int(r.stages.handlers.Load())
		abandoned = &AbandonedError{Handlers: handlers, Unsettled: max(0, int(r.inHand.Load())-handlers)}
		r.config.Logger.LogAttrs(context.Background(), slog.LevelError, "messages abandoned", errorAttr(abandoned))
	}
	return errors.Join(abandoned, r.subscription.Close())
}

// await shuts a gate until what it waits for is over.
func (r *consumerRun) await(which gate, cause error) {
	r.gates.shutUntil(which, &r.workers, func() {
		if which == gateBreaker {
			_ = r.config.Breaker.Wait(r.serving) // an error means that the drain began
			return
		}
		awaitDependency(r.serving, r.stages.keys, r.config.Idempotency, cause)
	})
}
