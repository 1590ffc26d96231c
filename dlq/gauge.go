package dlq

import (
	"context"
	"log/slog"
	"sync"

	"github.com/esh3artech/barid/metrics"
)

// entryGauge sets metrics.DeadLetters to the number of entries. Whoever has
// changed something calls refresh. At most one call counts, and one more waits
// for its turn. The count of that one covers all others, so that many dead
// letters at once don't cause as many counts.
type entryGauge struct {
	store    Store
	logger   *slog.Logger
	gauge    metrics.Gauge // nil without metrics
	counting chan struct{} // full while a call counts

	mu      sync.Mutex
	waiting bool // a call waits for its turn
}

func newEntryGauge(store Store, config *Config) *entryGauge {
	g := &entryGauge{store: store, logger: config.Logger}
	if config.Metrics != metrics.Discard {
		g.gauge = config.Metrics.Gauge(metrics.DeadLetters)
		g.counting = make(chan struct{}, 1)
	}
	return g
}

func (g *entryGauge) refresh(ctx context.Context) {
	if g.gauge == nil || !g.awaitTurn(ctx) {
		return
	}
	defer func() { <-g.counting }()
	count, err := g.store.Count(ctx, Filter{})
	if err != nil {
		g.logger.LogAttrs(ctx, slog.LevelWarn, "dead letters not counted", slog.Any("error", err))
		return
	}
	g.gauge.Set(float64(count))
}

// awaitTurn returns false when another call waits already, or when ctx has
// ended.
func (g *entryGauge) awaitTurn(ctx context.Context) bool {
	g.mu.Lock()
	covered := g.waiting
	g.waiting = true
	g.mu.Unlock()
	if covered {
		return false
	}
	defer func() {
		g.mu.Lock()
		g.waiting = false
		g.mu.Unlock()
	}()
	select {
	case g.counting <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
