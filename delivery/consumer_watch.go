package delivery

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/retry"
)

const (
	// watchInterval is how often running handlers are looked at.
	watchInterval = time.Second
	// overstay is for how long after its timeout a handler may still return
	// without a warning.
	overstay = time.Second
)

// runningHandler is what a worker's handler works on now.
type runningHandler struct {
	envelope atomic.Pointer[Envelope] // nil: no handler runs
	deadline atomic.Int64             // Unix time in nanoseconds
}

func (h *runningHandler) begin(envelope *Envelope, deadline time.Time) {
	h.deadline.Store(deadline.UnixNano())
	h.envelope.Store(envelope)
}

func (h *runningHandler) end() { h.envelope.Store(nil) }

// handlerWatch keeps the gauges of the handlers that run, and of those that go on
// after their timeout, and warns of each of these once.
type handlerWatch struct {
	config  *ConsumerConfig
	stages  *stages
	running []runningHandler // by worker
	warned  []*Envelope      // by worker: of which it has warned
}

func newHandlerWatch(config *ConsumerConfig, stages *stages) *handlerWatch {
	return &handlerWatch{
		config: config, stages: stages,
		running: make([]runningHandler, config.Concurrency), warned: make([]*Envelope, config.Concurrency),
	}
}

// start watches until end is called.
func (w *handlerWatch) start(ctx context.Context) (end func()) {
	watching, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for w.await(watching) {
			w.look(watching)
		}
		w.stages.metrics.handlersRun(0, 0)
	})
	return func() {
		cancel()
		watcher.Wait()
	}
}

// await blocks until it is time to look at the handlers, while none runs for as long
// as that. It returns false when ctx ends.
func (w *handlerWatch) await(ctx context.Context) bool {
	if w.stages.handlers.Load() == 0 {
		w.stages.metrics.handlersRun(0, 0)
		select {
		case <-w.stages.busy:
		case <-ctx.Done():
			return false
		}
	}
	return retry.Wait(ctx.Done(), watchInterval)
}

func (w *handlerWatch) look(ctx context.Context) {
	running, overdue := 0, 0
	late := time.Now().Add(-overstay).UnixNano()
	for i := range w.running {
		envelope := w.running[i].envelope.Load()
		if envelope == nil {
			w.warned[i] = nil
			continue
		}
		running++
		if w.running[i].deadline.Load() > late {
			continue
		}
		overdue++
		if w.warned[i] != envelope {
			w.warned[i] = envelope
			w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "handler overstays its timeout",
				slog.String("message_id", envelope.ID), slog.Int("attempt", envelope.Attempt+1), slog.Duration("timeout", w.config.HandlerTimeout))
		}
	}
	w.stages.metrics.handlersRun(running, overdue)
}
