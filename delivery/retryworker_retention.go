package delivery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// Purger is a DeadLetterer that can delete the dead letters that were given up
// longer ago than olderThan, whatever their source. It returns how many those were,
// with an error, too. *dlq.Manager is one.
type Purger interface {
	Purge(ctx context.Context, olderThan time.Duration) (int, error)
}

const (
	// purgeInterval is how often, at about, a worker looks for what may be purged.
	purgeInterval = time.Minute
	// purgeBatch is how many records are deleted together. After each batch the
	// purge rests for purgeRest times as long as that took, so that it leaves the
	// store to others for most of the time.
	purgeBatch = 500
	purgeRest  = 3
)

// retention deletes the records of a queue that have been kept for long enough,
// and dead letters. It runs beside the rounds of a worker, and no round waits for
// it. Its failures delay nothing, so they don't count as the store's.
type retention struct {
	store   Store
	config  *RetryWorkerConfig
	letters Purger // nil unless dead letters are purged

	purged, purgedLetters metrics.Counter
	failed                map[string]bool // the last try, by event
}

func (w *RetryWorker) newRetention() *retention {
	r := &retention{
		store:  w.store,
		config: &w.config,
		purged: w.config.Metrics.Counter(metrics.RecordsPurgedTotal, metrics.LabelQueue, w.config.Queue),
		failed: map[string]bool{},
	}
	if w.config.DeadLetterRetention > 0 {
		r.letters, _ = w.config.DeadLetters.(Purger) // validate has seen that it is one
		r.purgedLetters = w.config.Metrics.Counter(metrics.DeadLettersPurgedTotal)
	}
	return r
}

// run purges now and then until ctx ends. Workers that start together don't purge
// together.
func (r *retention) run(ctx context.Context) {
	for retry.Wait(ctx.Done(), rand.N(purgeInterval)) { //nolint:gosec // no secret
		r.purge(ctx)
		if !retry.Wait(ctx.Done(), purgeInterval/2) {
			return
		}
	}
}

// purge deletes everything that may be deleted, unless ctx ends before.
func (r *retention) purge(ctx context.Context) {
	if r.config.RecordRetention > 0 {
		purged, err := r.purgeRecords(ctx)
		if purged > 0 {
			r.purged.Add(int64(purged))
			r.config.Logger.LogAttrs(ctx, slog.LevelInfo, "records purged", slog.String("queue", r.config.Queue),
				slog.Int("count", purged), slog.Duration("older_than", r.config.RecordRetention))
		}
		r.tell(ctx, "records not purged", err)
	}
	if r.letters != nil {
		limited := within(ctx, time.Now(), settleTimeout)
		purged, err := r.letters.Purge(limited, r.config.DeadLetterRetention)
		if limited.Err() != nil && purged > 0 {
			err = nil // the next time goes on
		}
		limited.end()
		r.purgedLetters.Add(int64(purged))
		r.tell(ctx, "dead letters not purged", err)
	}
}

func (r *retention) purgeRecords(ctx context.Context) (purged int, err error) {
	before := time.Now().Add(-r.config.RecordRetention)
	for {
		began := time.Now()
		limited := within(ctx, began, settleTimeout)
		n, err := r.store.Purge(limited, r.config.Queue, before, purgeBatch)
		limited.end()
		purged += n
		if err != nil || n < purgeBatch || !retry.Wait(ctx.Done(), purgeRest*time.Since(began)) {
			return purged, err
		}
	}
}

// tell logs a failure, unless the try before failed as well.
func (r *retention) tell(ctx context.Context, event string, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil && !r.failed[event] {
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, event, slog.String("queue", r.config.Queue), errorAttr(err))
	}
	r.failed[event] = err != nil
}
