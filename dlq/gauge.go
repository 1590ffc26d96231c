package dlq

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/esh3artech/barid/metrics"
)

const (
	// countInterval is the least time between two counts.
	countInterval = 5 * time.Second
	// countTimeout bounds a count.
	countTimeout = 10 * time.Second
	// recountInterval is how often RunJobs counts what others have changed.
	recountInterval = time.Minute
)

// entryGauge sets metrics.DeadLetters to the number of entries. It counts in the
// background, once after the Manager was made, and then some time after something
// has changed, so that many dead letters don't cause as many counts, and nobody
// waits for one. Between two counts there is no goroutine that would have to be
// ended.
type entryGauge struct {
	store  Store
	logger *slog.Logger
	// gauge gets the gauge when there is a number: an unknown one is not 0. It is
	// nil when nobody looks.
	gauge func() metrics.Gauge

	mu        sync.Mutex
	scheduled bool      // a count waits for its time, or is on its way
	counting  bool      // it is on its way
	changed   bool      // and something has changed since it began
	last      time.Time // when the last count ended
}

func newEntryGauge(store Store, config *Config) *entryGauge {
	g := &entryGauge{store: store, logger: config.Logger}
	if config.Metrics != metrics.Discard {
		g.gauge = sync.OnceValue(func() metrics.Gauge { return config.Metrics.Gauge(metrics.DeadLetters) })
	}
	return g
}

// refresh has the entries counted soon.
func (g *entryGauge) refresh() {
	if g.gauge == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.scheduled {
		g.changed = g.counting
		return
	}
	g.schedule()
}

func (g *entryGauge) schedule() {
	g.scheduled, g.changed = true, false
	time.AfterFunc(max(0, countInterval-time.Since(g.last)), g.count)
}

func (g *entryGauge) count() {
	g.mu.Lock()
	g.counting = true
	g.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	count, err := g.ask(ctx)
	if err == nil {
		g.set(count)
	} else {
		g.logger.LogAttrs(ctx, slog.LevelWarn, "dead letters not counted", slog.Any("error", err))
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	g.counting, g.scheduled, g.last = false, false, time.Now()
	if g.changed {
		g.schedule()
	}
}

// ask counts. A panic of the host's store must not end the process, because
// nobody has called.
func (g *entryGauge) ask(ctx context.Context) (count int, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("dlq: store panicked: %v", value)
		}
	}()
	return g.store.Count(ctx, Filter{})
}

func (g *entryGauge) set(count int) {
	if g.gauge != nil {
		g.gauge().Set(float64(count))
	}
}
