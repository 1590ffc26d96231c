package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// ConsumerConfig configures a Consumer. The zero value is ready to use: no
// retries, no suppression of duplicates, no breaker, and the transport's own
// dead letters. A field that has no effect, because another one is not set, is a
// warning to Logger.
type ConsumerConfig struct {
	// Name is the queue's: it scopes idempotency keys, signs dead letters, and the
	// records of what the consumer has handled belong to it. All processes that
	// share a queue share the name; consumers of different queues have different
	// ones. A RetryWorker of the same queue has to run, see RetryWorkerConfig.Queue.
	// Default: the transport's name, if it is a Namer.
	Name string
	// Concurrency is how many handlers run at once. Default 16.
	Concurrency int
	// Prefetch bounds, for each priority, what is in hand. At most half of it waits
	// there for longer than 0.2 s for a key, a breaker or a next attempt; beyond
	// that the message that has waited longest is sent again with a delay of 10 s at
	// least, so that others have room. Default 100.
	Prefetch int
	// HandlerTimeout bounds one run of the handler. Default 30 s.
	HandlerTimeout time.Duration
	// DrainTimeout is how long Run lets handlers finish after its context ended,
	// before it cancels them. Default 30 s.
	DrainTimeout time.Duration
	// StarvationLimit is how many messages of higher priority may go before one
	// that waits. Default 100.
	StarvationLimit int
	// Ordered runs the messages of one recipient one after another, in the order
	// in which they came, or by priority where that differs. A message that fails
	// is tried again in hand, with its attempts counted there, and holds up its own
	// recipient only. Several processes need a transport that gives all of a
	// recipient's messages to one consumer at a time. Default: any order.
	Ordered bool
	// MaxHold is how long a message that fails, or that its handler puts off by
	// retry.Later, may hold up its recipient. A hold, also
	// one by a breaker of KeyBreakers, ends earlier when it is the oldest, and held
	// messages with those in line behind them take more than half of Prefetch for
	// longer than 0.2 s, because then they hold up other recipients, too. Default
	// 5 min.
	MaxHold time.Duration
	// OnHoldExceeded is what becomes of a message whose hold has ended. Default
	// HoldDeadLetter.
	OnHoldExceeded HoldPolicy
	// MaxBodyBytes bounds Message.Body. A message with a larger one becomes a dead
	// letter with ReasonMalformed. Default 16 MiB.
	MaxBodyBytes int

	// Retry says whether and when a failed attempt is tried again. Nil: never,
	// the first failure makes a dead letter.
	Retry retry.Policy
	// Classifier tells transient, recoverable and permanent errors apart. Its
	// zero value knows the usual ones. What it does not know is left to the
	// transport, if that is an ErrorClassifier.
	Classifier retry.Classifier
	// ImmediateRetries bounds the runs that follow a transient error at once, as
	// parts of the same attempt. Default 2; negative means none.
	ImmediateRetries int
	// MaxRetryAfter bounds the wait that an error may ask for by retry.After or
	// Retry-After. It does not bound retry.Later. Default 1 h.
	MaxRetryAfter time.Duration

	// MaxCrashes is how often a message may be started without coming to an end,
	// because its process died or was killed, before it becomes a dead letter with
	// ReasonCrashed. First deliveries are not counted: what ends them may as well be a
	// lost connection. The last start before the limit is made while no other suspect
	// runs in the process, so that a message is not given up for what another suspect
	// did.
	//
	// With Idempotency on a store that outlives the process, starts of what was
	// delivered before are kept there, for IdempotencyWindow. Without, the transport
	// has to know how often it delivered a message (quorum queues do, classic queues
	// do not): then the message is sent again with a count when it is suspected, the
	// limit is 5 at least, and in ordered mode nothing is counted. Messages that a
	// RetryWorker sends again after their process has ended are counted by the
	// idempotency store alone.
	//
	// Default 3 more than Retry allows retries, at most 20. Negative: no limit.
	MaxCrashes int

	// Idempotency suppresses duplicates. Nil handles every copy.
	Idempotency idempotency.Store
	// IdempotencyKey tells what duplicates have in common. Default Message.Key.
	IdempotencyKey func(Message) string
	// IdempotencyLease is after how long another consumer may handle a message
	// whose consumer died. It is renewed while the handler runs. Default 1 min.
	IdempotencyLease time.Duration
	// IdempotencyWindow is for how long a handled key is remembered. Default
	// 24 h; it must be longer than all retries of Retry together.
	IdempotencyWindow time.Duration
	// FailOpen handles messages while the idempotency store is down, at the risk
	// of duplicates. Default: the consumer pauses until it is back.
	FailOpen bool

	// Breaker, while open, pauses the consumer without counting an attempt. In
	// metrics and logs a breaker without a name has the consumer's, also one of
	// KeyBreakers. Nil: none.
	Breaker *breaker.Breaker
	// KeyBreakers and BreakerKey, set together and without Breaker, give every key (a provider, a
	// webhook's host) a breaker of its own, which while open postpones that key's
	// messages only. A key is logged when its breaker changes: do not make it of
	// recipients if these must not be in the log.
	KeyBreakers *breaker.Set
	BreakerKey  func(Message) string

	// Store, when set, keeps a record of every message: what it knows is durable
	// before the message is acked. Retries wait in it, and a RetryWorker, which
	// some process has to run, sends them when they are due; where none does, make
	// the Store one of RecordsOnly. It is the Store of the publishers. Nil keeps no
	// records: those that publishers make stay queued, which is a warning where the
	// transport is within the process.
	Store Store
	// AckTimeout is for how long the end user's acknowledgment of a message that
	// asks for one (Message.RequireAck) is awaited after the handler is done.
	// Until it comes the message is sent, not delivered. Further attempts of such a
	// message look its record up first, and do not run when it is acknowledged.
	// Default 5 min with a Store, without which it can't be set. Negative: no
	// acknowledgments, delivered when the handler is done.
	AckTimeout time.Duration

	// DeadLetters keeps what is given up; dlq.NewManager makes one. If it is a
	// Resolver as well, the letter of a message that is done already is taken back.
	// Default: the transport, if it is a DeadLetterer.
	DeadLetters DeadLetterer

	// Middleware wraps the handler, the first outermost.
	Middleware []Middleware
	// Metrics takes the barid_ metrics that package metrics lists. Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards. Bodies and recipients are never logged.
	Logger *slog.Logger

	settings error // what is wrong with the Settings that were put into it
	managed  bool  // Settings were put into it
}

func (c ConsumerConfig) withDefaults(transport Transport) ConsumerConfig {
	setDefault := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	setDuration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	if c.Name == "" && transport != nil {
		c.Name = nameOf(transport)
	}
	setDefault(&c.Concurrency, 16)
	setDefault(&c.Prefetch, defaultPrefetch)
	setDefault(&c.StarvationLimit, 100)
	setDefault(&c.MaxBodyBytes, DefaultMaxBody)
	setDefault(&c.ImmediateRetries, 2)
	setDuration(&c.HandlerTimeout, 30*time.Second)
	setDuration(&c.DrainTimeout, 30*time.Second)
	setDuration(&c.MaxRetryAfter, time.Hour)
	setDuration(&c.MaxHold, 5*time.Minute)
	if c.Store != nil {
		setDuration(&c.AckTimeout, 5*time.Minute)
	}
	setDuration(&c.IdempotencyLease, time.Minute)
	setDuration(&c.IdempotencyWindow, 24*time.Hour)
	if c.Retry == nil {
		c.Retry = retry.None{}
	}
	if c.MaxCrashes == 0 {
		c.MaxCrashes = defaultMaxCrashes(c.Retry)
	}
	if c.IdempotencyKey == nil {
		c.IdempotencyKey = func(m Message) string { return m.Key() }
	}
	if c.DeadLetters == nil {
		c.DeadLetters, _ = transport.(DeadLetterer)
	}
	c.Logger = guardedLogger(c.Logger)
	return c
}

func (c ConsumerConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: ConsumerConfig."+format, append([]any{ErrConfig}, args...)...))
	}
	positiveInt := func(field string, value int) {
		if value < 1 {
			fault("%s is %d, want at least 1", field, value)
		}
	}
	positive := func(field string, value time.Duration) {
		if value <= 0 {
			fault("%s is %s, want more than 0", field, value)
		}
	}
	if c.Name == "" {
		fault("Name is empty, and the transport has none of its own")
	}
	if c.settings != nil {
		faults = append(faults, c.settings)
	}
	if c.AckTimeout > 0 && c.Store == nil {
		fault("AckTimeout is %s, but Store is nil: acknowledgments are recorded there", c.AckTimeout)
	}
	positiveInt("Concurrency", c.Concurrency)
	positiveInt("Prefetch", c.Prefetch)
	positiveInt("StarvationLimit", c.StarvationLimit)
	positiveInt("MaxBodyBytes", c.MaxBodyBytes)
	positive("HandlerTimeout", c.HandlerTimeout)
	positive("DrainTimeout", c.DrainTimeout)
	positive("MaxRetryAfter", c.MaxRetryAfter)
	positive("MaxHold", c.MaxHold)
	if c.OnHoldExceeded != HoldDeadLetter && c.OnHoldExceeded != HoldPassBy {
		fault("OnHoldExceeded is %d, want HoldDeadLetter or HoldPassBy", c.OnHoldExceeded)
	}
	positive("IdempotencyLease", c.IdempotencyLease)
	if c.IdempotencyWindow <= c.IdempotencyLease {
		fault("IdempotencyWindow is %s, want more than IdempotencyLease (%s)", c.IdempotencyWindow, c.IdempotencyLease)
	}
	horizon := time.Duration(0)
	if err := guarded(func() error { horizon = retryHorizon(c.Retry); return nil }); err != nil {
		fault("Retry: %w", err)
	}
	if c.Idempotency != nil && c.IdempotencyWindow <= horizon {
		fault("IdempotencyWindow is %s, want more than all retries of Retry together (%s)", c.IdempotencyWindow, horizon)
	}
	if (c.KeyBreakers == nil) != (c.BreakerKey == nil) {
		fault("KeyBreakers and BreakerKey go together, set both or none")
	}
	if c.Breaker != nil && c.KeyBreakers != nil {
		fault("Breaker and KeyBreakers exclude each other, set one")
	}
	if c.DeadLetters == nil {
		fault("DeadLetters is nil, and the transport keeps none of its own: use dlq.NewManager")
	}
	for i, middleware := range c.Middleware {
		if middleware == nil {
			fault("Middleware[%d] is nil", i)
		}
	}
	if validator, ok := c.Retry.(interface{ Validate() error }); ok {
		if err := validator.Validate(); err != nil {
			fault("Retry: %w", err)
		}
	}
	if c.Breaker != nil {
		faults = append(faults, faultOf("ConsumerConfig.Breaker", c.Breaker))
	}
	if c.KeyBreakers != nil {
		faults = append(faults, faultOf("ConsumerConfig.KeyBreakers", c.KeyBreakers))
	}
	faults = append(faults,
		faultOf("ConsumerConfig.Idempotency", c.Idempotency),
		faultOf("ConsumerConfig.Store", c.Store),
		faultOf("ConsumerConfig.DeadLetters", c.DeadLetters))
	return errors.Join(faults...)
}

// idleFields are those that may have no effect. They are asked before the defaults are
// filled in.
func (c *ConsumerConfig) idleFields() []idleField {
	keys := c.Idempotency != nil
	return []idleField{
		{"ConsumerConfig.IdempotencyKey", "Idempotency", c.IdempotencyKey != nil && !keys},
		{"ConsumerConfig.IdempotencyLease", "Idempotency", c.IdempotencyLease != 0 && !keys},
		{"ConsumerConfig.IdempotencyWindow", "Idempotency", c.IdempotencyWindow != 0 && !keys && !c.managed},
		{"ConsumerConfig.FailOpen", "Idempotency", c.FailOpen && !keys},
		{"ConsumerConfig.MaxRetryAfter", "Retry", c.MaxRetryAfter != 0 && c.Retry == nil},
		{"ConsumerConfig.MaxHold", "Ordered", c.MaxHold != 0 && !c.Ordered},
		{"ConsumerConfig.OnHoldExceeded", "Ordered", c.OnHoldExceeded != HoldDeadLetter && !c.Ordered},
	}
}

// schedules says whether retries wait in the store.
func (c *ConsumerConfig) schedules() bool { return schedules(c.Store) }

// awaitsAck says whether message is done only when its end user says so.
func (c *ConsumerConfig) awaitsAck(message *Message) bool {
	return c.Store != nil && c.AckTimeout > 0 && message.RequireAck
}

// retryHorizon is how long all retries of policy take together. A policy that
// never ends is followed for its first thousand.
func retryHorizon(policy retry.Policy) time.Duration {
	var horizon time.Duration
	for n := 0; n < 1000 && policy.CanRetry(n); n++ {
		delay := max(0, policy.Delay(n))
		if horizon > math.MaxInt64-delay {
			return math.MaxInt64
		}
		horizon += delay
	}
	return horizon
}

// defaultMaxCrashes is the default of ConsumerConfig.MaxCrashes.
func defaultMaxCrashes(policy retry.Policy) int {
	const more, most = 3, 20
	retries := 0
	_ = guarded(func() error { // validate tells of a policy that panics
		for retries < most-more && policy.CanRetry(retries) {
			retries++
		}
		return nil
	})
	return retries + more
}

// Consumer runs a Handler on what a Transport brings, through the pipeline that
// the package comment draws. It is made by NewConsumer.
type Consumer struct {
	transport Transport
	handler   Handler
	config    ConsumerConfig
	guard     *idempotency.Guard // nil without a store
	metrics   *consumerMetrics

	mu      sync.Mutex
	running *consumerRun
	started chan struct{} // closed while a Run is subscribed
	paused  bool
}

// NewConsumer returns a Consumer over transport, which it does not close. The
// error names every fault of the config.
func NewConsumer(transport Transport, handler Handler, config ConsumerConfig) (*Consumer, error) {
	idle := config.idleFields()
	config = config.withDefaults(transport)
	fault := config.validate()
	if handler == nil {
		fault = errors.Join(fmt.Errorf("%w: handler is nil", ErrConfig), fault)
	}
	if transport == nil {
		fault = errors.Join(fmt.Errorf("%w: transport is nil", ErrConfig), fault)
	} else {
		fault = errors.Join(faultOf("transport", transport), fault)
	}
	if fault != nil {
		return nil, fault
	}
	warnOfIdle(config.Logger, idle)
	for i := len(config.Middleware) - 1; i >= 0; i-- {
		if handler = config.Middleware[i](handler); handler == nil {
			return nil, fmt.Errorf("%w: ConsumerConfig.Middleware[%d] returned a nil Handler", ErrConfig, i)
		}
	}
	if classifier, ok := transport.(ErrorClassifier); ok {
		config.Classifier.Rules = append(slices.Clone(config.Classifier.Rules), retry.Builtin, classifier.ClassifyError)
	}
	consumer := &Consumer{
		transport: transport,
		handler:   handler,
		config:    config,
		metrics:   newConsumerMetrics(config.Metrics),
		started:   make(chan struct{}),
	}
	if config.Idempotency != nil {
		consumer.guard = idempotency.NewGuard(config.Idempotency, idempotency.GuardConfig{
			Lease:  config.IdempotencyLease,
			Window: config.IdempotencyWindow,
			Logger: config.Logger,
		})
		if err := consumer.guard.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	return consumer, nil
}

// ErrRunning is returned by Run while another Run of the same Consumer goes on.
var ErrRunning = errors.New("delivery: consumer is running already")

// AbandonedError is returned by Run when the drain ended with messages that were
// neither settled nor given back. They will be redelivered.
type AbandonedError struct {
	// Handlers is how many went on after they were cancelled.
	Handlers int
	// Unsettled is how many further messages could be neither settled nor given
	// back in time, because a store or the transport did not answer.
	Unsettled int
}

func (e *AbandonedError) Error() string {
	var left []string
	if e.Handlers > 0 || e.Unsettled == 0 {
		left = append(left, fmt.Sprintf("%d handlers did not return after they were cancelled", e.Handlers))
	}
	if e.Unsettled > 0 {
		left = append(left, fmt.Sprintf("%d messages could not be settled, a store or the transport did not answer", e.Unsettled))
	}
	return "delivery: " + strings.Join(left, "; ") + "; their messages will be redelivered"
}

// Run consumes until ctx ends, and then drains: it stops fetching, gives back
// what was not started, lets running handlers finish for DrainTimeout, cancels
// them, and waits 5 s more. It returns nil when all messages are settled or given
// back, and *AbandonedError when a handler did not stop or a store did not answer.
//
// Before ctx ends it returns an error only if it can never start (the transport refuses
// for good, or the idempotency store is not fit for use), or if the transport was
// closed meanwhile, which matches ErrClosed. It survives outages of everything, also
// at its start: what can't be reached then is tried again, at most half a minute apart,
// for as long as it takes. If ctx has a deadline, and that ends before Run could start,
// the error is ctx's, joined with what kept it from starting.
func (c *Consumer) Run(ctx context.Context) error {
	if c == nil || c.transport == nil {
		return fmt.Errorf("%w: Consumer was not made by NewConsumer", ErrConfig)
	}
	r, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		r.stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running = nil
		select {
		case <-c.started:
			c.started = make(chan struct{})
		default:
		}
	}()
	switch err := r.subscribe(ctx); {
	case err == nil:
		close(c.started) // which only this Run changes
		return r.until(ctx)
	case errors.Is(ctx.Err(), context.Canceled):
		return nil // told to end before it began
	default:
		return err
	}
}

// Started is closed when Run has subscribed, so that messages come from then on: for
// hosts that report to be ready, and for tests. When that Run has ended, Started returns
// another channel, for the next one.
func (c *Consumer) Started() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started
}

// Checker is a dependency that can tell whether it is fit for use. Run asks the
// idempotency store, if it is one, before it starts.
type Checker interface {
	Check(ctx context.Context) error
}

func (c *Consumer) start(ctx context.Context) (*consumerRun, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return nil, ErrRunning
	}
	c.running = newConsumerRun(ctx, c)
	if c.paused {
		c.running.gates.shut(gatePaused)
	}
	return c.running, nil
}

// Pause keeps further handlers from starting, in this Run and later ones, until
// Resume. Those that run go on. Messages in hand stay there; where the
// transport can pause, other processes get what comes meanwhile.
func (c *Consumer) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
	if c.running != nil {
		c.running.gates.shut(gatePaused)
	}
}

// Resume ends a Pause.
func (c *Consumer) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = false
	if c.running != nil {
		c.running.gates.open(gatePaused)
	}
}
