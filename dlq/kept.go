package dlq

import (
	"context"
	"log/slog"
	"sync"

	"github.com/esh3artech/barid/metrics"
)

// kept keeps the gauge of how many entries there are. Whoever changed
// something calls refresh; at most one call counts and one more waits for its
// turn, whose count then covers all others, so that a flood of dead letters
// doesn't become a flood of counts.
type kept struct {
	store   Store
	logger  *slog.Logger
	gauge   metrics.Gauge // nil when nobody looks
	running chan struct{} // holds one while a count runs

	mu      sync.Mutex
	waiting bool
}

func (k *kept) refresh(ctx context.Context) {
	if k.gauge == nil {
		return
	}
	k.mu.Lock()
	covered := k.waiting
	k.waiting = true
	k.mu.Unlock()
	if covered {
		return
	}
	turn := false
	select {
	case k.running <- struct{}{}:
		turn = true
	case <-ctx.Done():
	}
	k.mu.Lock()
	k.waiting = false
	k.mu.Unlock()
	if !turn {
		return
	}
	defer func() { <-k.running }()
	count, err := k.store.Count(ctx, Filter{})
	if err != nil {
		k.logger.LogAttrs(ctx, slog.LevelWarn, "dead letters not counted", slog.Any("error", err))
		return
	}
	k.gauge.Set(float64(count))
}
