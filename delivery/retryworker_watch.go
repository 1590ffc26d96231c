package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

const (
	// recordsInterval is how often what waits in the store is counted. Where that takes
	// long it is less often: at most a part in countShare of the time.
	recordsInterval = 15 * time.Second
	countShare      = 20
)

// waitingStatuses are those of records that something is still expected of.
var waitingStatuses = [...]Status{StatusPending, StatusQueued, StatusRetrying, StatusSent} //nolint:gochecknoglobals // a constant

// watchRecords keeps the gauges of what waits in the store, until ctx ends.
func (w *RetryWorker) watchRecords(ctx context.Context, health *dependency) {
	failed := false
	for wait := time.Duration(0); retry.Wait(ctx.Done(), wait); {
		wait = recordsInterval
		if health.err() != nil {
			continue
		}
		began := time.Now()
		limited := within(ctx, began, settleTimeout)
		stats, err := w.store.Stats(limited, w.config.Queue, waitingStatuses[:]...)
		limited.end()
		wait = max(wait, countShare*time.Since(began))
		switch {
		case err == nil:
			w.tellRecords(&stats)
		case !failed && ctx.Err() == nil: // the store need not be down: counting may take too long
			w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "records not counted", slog.String("queue", w.config.Queue), errorAttr(err))
		}
		failed = err != nil
	}
}

func (w *RetryWorker) tellRecords(stats *RecordStats) {
	for _, status := range waitingStatuses {
		for _, priority := range Priorities() {
			w.config.Metrics.Gauge(metrics.Records, metrics.LabelQueue, w.config.Queue,
				metrics.LabelStatus, string(status), metrics.LabelPriority, priority.String()).Set(float64(stats.Counts[status][priority]))
		}
	}
}
