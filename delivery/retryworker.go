package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// The defaults of RetryWorkerConfig, and its bound.
const (
	defaultScanInterval = 30 * time.Second
	defaultClaimBatch   = 500
	defaultClaimLease   = time.Minute
	minClaimLease       = time.Second
	defaultRetention    = 30 * 24 * time.Hour
	minRetention        = time.Minute
)

// RetryWorkerConfig configures a RetryWorker. The zero value is ready to use with
// a transport that has a name and keeps dead letters.
type RetryWorkerConfig struct {
	// Queue is the queue whose records the worker sees to, and the DeadLetter.Source
	// of what it gives up. Give it the PublisherConfig.Queue of the publishers and
	// the ConsumerConfig.Name of the consumers, so that it sees to all of theirs, and
	// one message never becomes two letters. Default: the transport's name, if it is
	// a Namer.
	Queue string
	// ScanInterval is how long the worker sleeps at most. It wakes earlier for
	// everything of which the store knows when it is due. Default 30 s; more than 0.
	ScanInterval time.Duration
	// BatchSize is how many records are claimed, and sent, together, which is
	// also how many bodies are in memory at once. A higher priority goes first, but
	// an eighth of all goes by when it is due alone, so that for each message that
	// was due before it, one of a lower priority is passed over at most seven times.
	// Default 500, from 1 to MaxClaim.
	BatchSize int
	// Lease is after how long another worker goes on with what this one had
	// claimed when it died, and after how long what could not be sent is tried
	// again. To claim and send one batch may take half of it. Default 1 min, at
	// least 1 s.
	Lease time.Duration

	// Retry says whether and when a message that nobody acknowledged is sent
	// again; it should be the consumers'. Nil: never, the message becomes a dead
	// letter.
	Retry retry.Policy
	// DeadLetters keeps what is given up; dlq.NewManager makes one. A message may
	// be acknowledged at the very moment at which it is given up: if DeadLetters is
	// a Resolver as well, its letter is taken back then, as soon as that can be done
	// while the worker runs. Default: the transport, if it is a DeadLetterer.
	DeadLetters DeadLetterer
	// IgnoreAckTimeouts leaves messages alone whose acknowledgment is overdue.
	// They stay sent, and can still be acknowledged; a later Run without it counts
	// their attempts as failed. Default: overdue acknowledgments are failed attempts.
	IgnoreAckTimeouts bool

	// RecordRetention is for how long a record is kept after its last change, once
	// its message is delivered, read, cancelled, a duplicate or a dead letter. Then Run
	// and RunOnce delete it, whoever runs first, in small batches; other records are
	// never deleted. A message that is published again after that, with the same ID, is
	// sent again, and an acknowledgment is ErrNotFound. A dead letter stays, and can
	// be requeued. So it should be longer than PublisherConfig.IdempotencyTTL, and
	// than acknowledgments take. Default 30 days, at least 1 min; negative keeps
	// records for ever.
	RecordRetention time.Duration
	// DeadLetterRetention is for how long a dead letter is kept after it was given
	// up. Then it is deleted for good, from whatever queue it came: workers that share
	// a store of dead letters should have the same. DeadLetters has to be a Purger.
	// Default 0, which keeps dead letters for ever; else at least 1 min.
	DeadLetterRetention time.Duration

	// Metrics takes barid_records, every 15 s or, where counting takes long, a twentieth
	// of the time; barid_records_purged_total, barid_dead_letters_purged_total,
	// barid_ack_timeouts_total; and barid_dependency_up for the
	// dependencies store, transport and dead_letters. Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards. Bodies and recipients are never logged.
	Logger *slog.Logger

	settings error // what is wrong with the Settings that were put into it
	managed  bool  // Settings were put into it
}

func (c RetryWorkerConfig) withDefaults(transport Transport) RetryWorkerConfig {
	if c.Queue == "" && transport != nil {
		c.Queue = nameOf(transport)
	}
	if c.ScanInterval == 0 {
		c.ScanInterval = defaultScanInterval
	}
	if c.BatchSize == 0 {
		c.BatchSize = defaultClaimBatch
	}
	if c.Lease == 0 {
		c.Lease = defaultClaimLease
	}
	if c.RecordRetention == 0 {
		c.RecordRetention = defaultRetention
	}
	if c.Retry == nil {
		c.Retry = retry.None{}
	}
	if c.DeadLetters == nil {
		c.DeadLetters, _ = transport.(DeadLetterer)
	}
	c.Metrics = metrics.Guarded(c.Metrics)
	c.Logger = guardedLogger(c.Logger)
	return c
}

func (c *RetryWorkerConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: RetryWorkerConfig."+format, append([]any{ErrConfig}, args...)...))
	}
	if c.Queue == "" {
		fault("Queue is empty, and the transport has no name of its own")
	}
	if c.ScanInterval <= 0 {
		fault("ScanInterval is %s, want more than 0", c.ScanInterval)
	}
	if c.BatchSize < 1 || c.BatchSize > MaxClaim {
		fault("BatchSize is %d, want 1 to %d", c.BatchSize, MaxClaim)
	}
	if c.Lease < minClaimLease {
		fault("Lease is %s, want at least %s", c.Lease, minClaimLease)
	}
	if c.RecordRetention >= 0 && c.RecordRetention < minRetention {
		fault("RecordRetention is %s, want at least %s, or less than 0 to keep records for ever", c.RecordRetention, minRetention)
	}
	if c.DeadLetterRetention != 0 && c.DeadLetterRetention < minRetention {
		fault("DeadLetterRetention is %s, want at least %s, or 0 to keep dead letters for ever", c.DeadLetterRetention, minRetention)
	}
	if _, ok := c.DeadLetters.(Purger); !ok && c.DeadLetterRetention > 0 && c.DeadLetters != nil {
		fault("DeadLetterRetention is set, but DeadLetters is no Purger: use dlq.NewManager")
	}
	if validator, ok := c.Retry.(interface{ Validate() error }); ok {
		if err := validator.Validate(); err != nil {
			fault("Retry: %w", err)
		}
	}
	if c.DeadLetters == nil {
		fault("DeadLetters is nil, and the transport keeps none of its own: use dlq.NewManager")
	}
	return errors.Join(append(faults, c.settings, faultOf("RetryWorkerConfig.DeadLetters", c.DeadLetters))...)
}

// RetryWorker goes on with the stored messages of a queue whose time has come. It
// claims them from the Store in batches, so that any number of workers, in any
// processes, can share one, and sees to
//
//   - retries that are due, messages that were scheduled, and messages that a
//     publisher saved before it died: they are sent, and become queued once the
//     transport has confirmed them;
//   - messages that waited in a Volatile transport whose process is gone: the
//     same;
//   - messages whose acknowledgment is overdue: that is a failed attempt, which
//     is counted, and the message is scheduled for a retry as
//     RetryWorkerConfig.Retry says, or becomes a dead letter with
//     ReasonAckTimeout.
//
// Each step is durable before the status moves on. What can't be confirmed stays
// claimed and comes due again after the lease. So a worker that dies between
// the two costs one more copy of each message that it had in hand, and no
// message. What the transport will never take (ErrInvalid, ErrTooLarge) becomes
// a dead letter with ReasonPermanent, without an attempt counted.
//
// A worker may die after it has put a dead letter and before it has recorded
// that. Both the letter and the message are there then. The worker that claims
// the message next puts the same letter again. If the message is acknowledged
// before that, the letter stays, and is for people to delete. A replay of it sends
// nothing, since the record says that the message is done.
//
// With a Volatile transport the worker also renews the claims on what waits
// there. When Run ends it ends those claims, so that other workers, or the next
// start, go on at once and not only after the lease. End it after the publishers
// and the consumers of the same process and transport: what these still have in
// hand would be delivered twice, unless an idempotency store prevents that. For
// the same reason run one worker at a time for each such transport.
//
// Beside that it deletes the queue's records that have been kept for
// RetryWorkerConfig.RecordRetention, and dead letters after DeadLetterRetention: a
// little at a time, so that it holds up nothing else.
//
// A worker that can't reach the store, the transport or the dead letters tries
// again, at most half a minute apart, for as long as it takes.
type RetryWorker struct {
	store     Store
	transport Transport
	config    RetryWorkerConfig
	session   string // of a Volatile transport, else empty
}

// NewRetryWorker returns a RetryWorker, which closes neither store nor transport.
// The error names every fault of the config. A store made by RecordsOnly is one.
func NewRetryWorker(store Store, transport Transport, config RetryWorkerConfig) (*RetryWorker, error) {
	idle := []idleField{{"RetryWorkerConfig.Retry", "no IgnoreAckTimeouts", config.Retry != nil && config.IgnoreAckTimeouts && !config.managed}}
	config = config.withDefaults(transport)
	fault := config.validate()
	if transport == nil {
		fault = errors.Join(fmt.Errorf("%w: transport is nil", ErrConfig), fault)
	} else {
		fault = errors.Join(faultOf("transport", transport), fault)
	}
	switch {
	case store == nil:
		fault = errors.Join(fmt.Errorf("%w: store is nil", ErrConfig), fault)
	case !schedules(store):
		fault = errors.Join(fmt.Errorf("%w: store is RecordsOnly: nothing waits in it for a RetryWorker", ErrConfig), fault)
	default:
		fault = errors.Join(faultOf("store", store), fault)
	}
	if fault != nil {
		return nil, fault
	}
	warnOfIdle(config.Logger, idle)
	return &RetryWorker{store: store, transport: transport, config: config, session: sessionOf(transport)}, nil
}

// Run works until ctx ends and what is under way is finished, for which it takes
// 10 s more at most. It returns nil then. Before that it returns only if the
// worker was not made by NewRetryWorker, with ErrConfig.
func (w *RetryWorker) Run(ctx context.Context) error {
	r, err := w.newRun()
	if err != nil {
		return err
	}
	work, end := outliving(ctx, settleTimeout)
	defer end()
	defer r.session.keep(ctx, work)()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { w.newRetention(r.health.store).run(ctx) })
	if pinger, able := abilityOf[Pinger](w.store); able {
		beside.Go(func() { r.health.store.watch(ctx, pinger) })
	}
	if pinger, able := w.config.DeadLetters.(Pinger); able {
		beside.Go(func() { r.health.deadLetters.watch(ctx, pinger) })
	}
	if w.config.Metrics != metrics.Discard {
		beside.Go(func() { w.watchRecords(ctx, r.health.store) })
	}
	if watcher, ok := abilityOf[StoreWatcher](w.store); ok {
		defer watcher.Watch(r.wakeup.noLaterThan)()
	}
	for ctx.Err() == nil {
		if full := r.round(ctx, work); !full && !r.sleep(ctx) {
			break
		}
	}
	r.stale.finish(work, time.Now().Add(settleTimeout))
	return nil
}

// RunOnce sees to everything that is due and returns, for hosts that have a
// scheduler of their own. Its error joins the last failure of each of store,
// transport and dead letters that is down, and ctx's. What could not be done then
// is left for a later call; what was claimed comes due when the lease ends. At last
// it deletes what has been kept for long enough, for as long as a lease at most; a
// failure of that is logged only.
//
// Where the transport is Volatile, the process needs Run.
func (w *RetryWorker) RunOnce(ctx context.Context) error {
	r, err := w.newRun()
	if err != nil {
		return err
	}
	work, end := outliving(ctx, settleTimeout)
	defer end()
	begin := time.Now()
	for ctx.Err() == nil && r.round(ctx, work) {
		if r.recorded == 0 && time.Since(begin) >= w.config.Lease {
			break // it claims again what it could not send
		}
	}
	r.stale.finish(work, time.Now().Add(w.config.Lease))
	purging, done := context.WithTimeout(ctx, w.config.Lease)
	defer done()
	w.newRetention(r.health.store).purge(purging)
	return errors.Join(ctx.Err(), r.outages())
}

// outliving is a context that ends grace after ctx.
func outliving(ctx context.Context, grace time.Duration) (work context.Context, end func()) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		retry.Wait(work.Done(), grace)
		cancel()
	})
	return work, func() {
		stop()
		cancel()
	}
}
