package delivery

import (
	"context"
	"log/slog"
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

// watchHandlers keeps the gauges of the handlers that run, and of those that go on
// after their timeout, and warns of each of these once. It returns when ctx ends.
func (r *consumerRun) watchHandlers(ctx context.Context) {
	warned := make([]*Envelope, len(r.running))
	for {
		if r.stages.handlers.Load() == 0 {
			r.metrics.handlersRun(0, 0)
			select {
			case <-r.stages.busy:
			case <-ctx.Done():
				return
			}
		}
		if !retry.Wait(ctx.Done(), watchInterval) {
			r.metrics.handlersRun(0, 0)
			return
		}
		running, overdue := 0, 0
		late := time.Now().Add(-overstay).UnixNano()
		for i := range r.running {
			envelope := r.running[i].envelope.Load()
			if envelope == nil {
				warned[i] = nil
				continue
			}
			running++
			if r.running[i].deadline.Load() > late {
				continue
			}
			overdue++
			if warned[i] != envelope {
				warned[i] = envelope
				r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "handler overstays its timeout",
					slog.String("message_id", envelope.ID), slog.Int("attempt", envelope.Attempt+1), slog.Duration("timeout", r.config.HandlerTimeout))
			}
		}
		r.metrics.handlersRun(running, overdue)
	}
}
