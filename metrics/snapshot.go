package metrics

import (
	"strconv"
	"time"
)

// Snapshot has the figures of one moment. It is plain data, to be kept or sent as
// JSON. A rate whose divisor is 0 is 0: the totals tell "none failed" from "nothing
// happened".
type Snapshot struct {
	// At is when it was taken.
	At time.Time `json:"at"`
	// WindowSeconds is the time, in seconds, that rates and distributions are
	// computed over. While the Collector is younger than its window, it is its age.
	WindowSeconds float64 `json:"window_seconds"`

	// PublishedPerSecond is how many messages were accepted for publishing, over
	// the window, divided by its seconds (at least one).
	PublishedPerSecond float64 `json:"published_per_second"`
	// ProcessedPerSecond is how many received messages were settled for good,
	// over the window, divided by its seconds (at least one): delivered +
	// retried + dead_lettered + duplicate. Those deferred, postponed or abandoned
	// come again and count then.
	ProcessedPerSecond float64 `json:"processed_per_second"`

	// Published has the totals since the start by outcome, of all priorities.
	Published map[string]int64 `json:"published"`
	// Processed has the totals since the start by outcome.
	Processed map[string]int64 `json:"processed"`

	// HandlerSeconds is how long the handler ran, over the window, in seconds.
	HandlerSeconds Distribution `json:"handler_seconds"`
	// QueueDepth is how many messages wait, by priority, as last reported.
	QueueDepth map[string]int64 `json:"queue_depth"`

	// RetryRate is the share of failed attempts that are tried again among all
	// attempts that came to an end, over the window, from 0 to 1:
	// retried / (delivered + retried + dead_lettered).
	RetryRate float64 `json:"retry_rate"`
	// FailureRate is the share of messages given up among those that came to an
	// end, over the window, from 0 to 1:
	// dead_lettered / (delivered + dead_lettered).
	FailureRate float64 `json:"failure_rate"`
	// MeanAttempts is how many attempts a delivered message needed, over the
	// window, the one that succeeded included: 1 means that none was tried
	// again. 0 means that none was delivered.
	MeanAttempts float64 `json:"mean_attempts"`

	// DeadLetters is how many are kept, as last reported.
	DeadLetters int64 `json:"dead_letters"`
	// DeadLettersByReason has the totals of messages given up since the start.
	DeadLettersByReason map[string]int64 `json:"dead_letters_by_reason"`

	// Breakers has the circuit breakers by name.
	Breakers map[string]Breaker `json:"breakers"`

	// DedupHitRate is the share of duplicates among the messages whose
	// idempotency key could be judged, over the window, from 0 to 1:
	// (duplicate + stale) / (claimed + duplicate + stale). A busy key will be
	// asked again and counts then.
	DedupHitRate float64 `json:"dedup_hit_rate"`
}

// Breaker is one circuit breaker in a Snapshot.
type Breaker struct {
	// State is StateClosed, StateHalfOpen or StateOpen.
	State string `json:"state"`
	// Transitions has the state changes since the start, by the new state.
	Transitions map[string]int64 `json:"transitions"`
}

// Snapshot reads the figures of now. It takes some microseconds for each
// series; messages go on meanwhile, so that two figures may differ by those
// under way.
func (c *Collector) Snapshot() Snapshot {
	if c == nil {
		return Snapshot{At: time.Now()}
	}
	c.ready()
	covered := c.clock.covered().Seconds()
	divisor := max(covered, 1)

	published := c.recent(MessagesPublishedTotal, LabelOutcome)
	processed := c.recent(MessagesProcessedTotal, LabelOutcome)
	dedup := c.recent(IdempotencyTotal, LabelResult)
	delivered, retried, dead := processed[OutcomeDelivered], processed[OutcomeRetried], processed[OutcomeDeadLettered]
	hits := dedup[IdempotencyDuplicate] + dedup[IdempotencyStale]

	snapshot := Snapshot{
		At:                  time.Now(),
		WindowSeconds:       covered,
		PublishedPerSecond:  float64(published[PublishAccepted]) / divisor,
		ProcessedPerSecond:  float64(delivered+retried+dead+processed[OutcomeDuplicate]) / divisor,
		Published:           c.values(MessagesPublishedTotal, LabelOutcome),
		Processed:           c.values(MessagesProcessedTotal, LabelOutcome),
		HandlerSeconds:      c.distribution(HandlerSeconds),
		QueueDepth:          c.values(QueueDepth, LabelPriority),
		RetryRate:           share(retried, delivered+retried+dead),
		FailureRate:         share(dead, delivered+dead),
		MeanAttempts:        c.distribution(AttemptsToSuccess).Mean,
		DeadLettersByReason: c.values(DeadLettersTotal, LabelReason),
		Breakers:            c.breakers(),
		DedupHitRate:        share(hits, dedup[IdempotencyClaimed]+hits),
	}
	for _, s := range c.of(DeadLetters) {
		snapshot.DeadLetters += int64(s.value())
	}
	return snapshot
}

func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// recent adds up what counters of one name counted within the window, by the
// value of one label.
func (c *Collector) recent(name, label string) map[string]int64 {
	frame := c.clock.frame()
	sums := make(map[string]int64)
	for _, s := range c.of(name) {
		if s.counter != nil {
			sums[s.label(label)] += s.counter.recent(frame)
		}
	}
	return sums
}

// values adds up what the series of one name hold, by the value of one label.
func (c *Collector) values(name, label string) map[string]int64 {
	sums := make(map[string]int64)
	for _, s := range c.of(name) {
		sums[s.label(label)] += int64(s.value())
	}
	return sums
}

// distribution is that of a histogram without labels.
func (c *Collector) distribution(name string) Distribution {
	for _, s := range c.of(name) {
		if s.histogram != nil && len(s.labels) == 0 {
			return s.histogram.recent(c.clock.frame())
		}
	}
	return Distribution{}
}

func (c *Collector) breakers() map[string]Breaker {
	breakers := make(map[string]Breaker)
	get := func(name string) Breaker {
		if known, ok := breakers[name]; ok {
			return known
		}
		return Breaker{State: StateClosed, Transitions: make(map[string]int64)}
	}
	for _, s := range c.of(BreakerState) {
		breaker := get(s.label(LabelName))
		switch state := s.value(); state {
		case BreakerClosed:
			breaker.State = StateClosed
		case BreakerHalfOpen:
			breaker.State = StateHalfOpen
		case BreakerOpen:
			breaker.State = StateOpen
		default:
			breaker.State = strconv.FormatFloat(state, 'g', -1, 64)
		}
		breakers[s.label(LabelName)] = breaker
	}
	for _, s := range c.of(BreakerTransitionsTotal) {
		breaker := get(s.label(LabelName))
		breaker.Transitions[s.label(LabelTo)] += int64(s.value())
		breakers[s.label(LabelName)] = breaker
	}
	return breakers
}
