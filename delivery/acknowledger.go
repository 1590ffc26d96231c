package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/esh3artech/barid/metrics"
)

// defaultAckLimit is the default of AcknowledgerConfig.BatchSizeLimit.
const defaultAckLimit = 1000

// AcknowledgerConfig configures an Acknowledger. The zero value is ready to use.
type AcknowledgerConfig struct {
	// DeadLetters deletes the dead letter of a message that is acknowledged after
	// it was given up; dlq.Manager does. Nil: the letter stays.
	DeadLetters Resolver
	// BatchSizeLimit is how many IDs a call may have. Default 1000, at least 1.
	BatchSizeLimit int
	// Metrics takes barid_ack_seconds, for each message that an acknowledgment
	// made delivered. Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards.
	Logger *slog.Logger
}

// Acknowledger records what end users acknowledge. Any number of goroutines, in any
// number of processes, may use one or several on the same Store.
type Acknowledger struct {
	store   Store
	config  AcknowledgerConfig
	seconds metrics.Histogram
}

// NewAcknowledger returns an Acknowledger over store. The error names every fault
// of the config.
func NewAcknowledger(store Store, config AcknowledgerConfig) (*Acknowledger, error) {
	if config.BatchSizeLimit == 0 {
		config.BatchSizeLimit = defaultAckLimit
	}
	config.Logger = guardedLogger(config.Logger)
	var faults []error
	if store == nil {
		faults = append(faults, fmt.Errorf("%w: store is nil", ErrConfig))
	} else {
		faults = append(faults, faultOf("store", store))
	}
	if config.BatchSizeLimit < 0 {
		faults = append(faults, fmt.Errorf("%w: AcknowledgerConfig.BatchSizeLimit is %d, want at least 1", ErrConfig, config.BatchSizeLimit))
	}
	if err := errors.Join(append(faults, faultOf("AcknowledgerConfig.DeadLetters", config.DeadLetters))...); err != nil {
		return nil, err
	}
	return &Acknowledger{
		store:   store,
		config:  config,
		seconds: metrics.Guarded(config.Metrics).Histogram(metrics.AckSeconds),
	}, nil
}

// ErrUnresolved says that the message is acknowledged, but that its dead letter
// could not be deleted. To acknowledge it again tries that again.
var ErrUnresolved = errors.New("delivery: acknowledged, but the dead letter stays")

// AckLimitError says that a call has more IDs than AcknowledgerConfig allows. It
// is ErrInvalid.
type AckLimitError struct {
	IDs   int
	Limit int
}

func (e *AckLimitError) Error() string {
	return fmt.Sprintf("delivery: %d acknowledgments at once, at most %d are allowed", e.IDs, e.Limit)
}

// Is makes it ErrInvalid.
func (e *AckLimitError) Is(target error) bool { return target == ErrInvalid }

// Delivered records that the end user has got the messages, whatever became of
// them meanwhile. A retry that is pending is cancelled, a dead letter is deleted,
// and an acknowledgment that comes before the handler returns stands. To
// acknowledge again, or after Read, changes nothing and is no error.
//
// All IDs are one call of the store. Delivered returns nil when all is recorded;
// ctx's error when ctx had ended; an error that matches ErrInvalid, with nothing
// recorded, when an ID is empty or there are more than the limit; and otherwise a
// *ResultsError, with a result for each ID:
//
//   - ErrNotFound: there is no such message
//   - ErrNotAwaited: it was cancelled, or given up without ever having been sent
//   - ErrUnresolved: it is recorded, but the dead letter could not be deleted
//   - ErrStoreDown, or a context's error: it may or may not be recorded
func (a *Acknowledger) Delivered(ctx context.Context, ids ...string) error {
	return a.acknowledge(ctx, StatusDelivered, ids)
}

// Read records that the end user has seen the messages, which then are delivered,
// too. All else is as for Delivered.
func (a *Acknowledger) Read(ctx context.Context, ids ...string) error {
	return a.acknowledge(ctx, StatusRead, ids)
}

func (a *Acknowledger) acknowledge(ctx context.Context, status Status, ids []string) error {
	if a == nil || a.store == nil {
		return fmt.Errorf("%w: Acknowledger was not made by NewAcknowledger", ErrConfig)
	}
	if len(ids) == 0 {
		return nil
	}
	if len(ids) > a.config.BatchSizeLimit {
		return &AckLimitError{IDs: len(ids), Limit: a.config.BatchSizeLimit}
	}
	now := microseconds(time.Now())
	updates := make([]Update, len(ids))
	for i, id := range ids {
		if id == "" {
			return &InvalidError{Field: "ID", Problem: fmt.Sprintf("is empty, number %d of %d", i+1, len(ids))}
		}
		updates[i] = Update{ID: id, Status: status, At: now, Acknowledged: true}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	progress, errs := a.store.Update(ctx, updates...)
	if len(progress) != len(ids) {
		if len(errs) != len(ids) || slices.Contains(errs, nil) {
			return fmt.Errorf("%w: it returned %d answers for %d updates", ErrStoreDown, len(progress), len(ids))
		}
		progress = make([]Progress, len(ids))
	}
	errs = eachOf(errs, len(ids))
	a.report(ctx, ids, progress, errs, now)
	return resultsError(len(ids), func(i int) string { return ids[i] }, a.resolve(ctx, ids, progress, errs))
}

// report tells metrics and log what the acknowledgments have changed.
func (a *Acknowledger) report(ctx context.Context, ids []string, progress []Progress, errs []error, now time.Time) {
	repeated := make(map[string]bool, len(ids))
	for i, id := range ids {
		if errs[i] != nil || repeated[id] {
			continue
		}
		repeated[id] = true
		p := &progress[i]
		if p.DeliveredAt.Equal(now) && !p.SentAt.IsZero() {
			a.seconds.Observe(max(0, now.Sub(p.SentAt).Seconds()))
		}
		if p.UpdatedAt.Equal(now) {
			a.config.Logger.LogAttrs(ctx, slog.LevelInfo, "message acknowledged",
				slog.String("message_id", id), slog.String("status", string(p.Status)))
		}
	}
}

// resolve deletes the dead letters of what is acknowledged, and returns errs with
// what failed.
func (a *Acknowledger) resolve(ctx context.Context, ids []string, progress []Progress, errs []error) []error {
	if a.config.DeadLetters == nil {
		return errs
	}
	var letters []string
	seen := map[string]bool{}
	for i := range ids {
		if letter := progress[i].DeadLetterID; errs[i] == nil && letter != "" && !seen[letter] {
			seen[letter] = true
			letters = append(letters, letter)
		}
	}
	if len(letters) == 0 {
		return errs
	}
	err := a.config.DeadLetters.Resolve(ctx, letters...)
	if err == nil {
		return errs
	}
	a.config.Logger.LogAttrs(ctx, slog.LevelWarn, "dead letters of acknowledged messages stay",
		slog.Any("dead_letter_ids", letters), errorAttr(err))
	all := make([]error, len(errs))
	for i := range ids {
		if all[i] = errs[i]; errs[i] == nil && progress[i].DeadLetterID != "" {
			all[i] = fmt.Errorf("%w: %w", ErrUnresolved, err)
		}
	}
	return all
}
