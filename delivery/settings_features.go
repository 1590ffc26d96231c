package delivery

import (
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/retry"
)

// Retry is the policy for failed attempts: exponential, without jitter, or
// retry.None where the feature is off or MaxRetries is 0.
func (s Settings) Retry() retry.Policy {
	if !s.Features.Retry || s.MaxRetries == 0 {
		return retry.None{}
	}
	return retry.Exponential{
		Base:       s.BaseRetryDelay,
		Max:        s.MaxRetryDelay,
		MaxRetries: s.MaxRetries,
	}
}

// retryLike is Retry with the jitter of the host's own policy.
func (s Settings) retryLike(own retry.Policy) retry.Policy {
	policy, retries := s.Retry().(retry.Exponential)
	if !retries {
		return retry.None{}
	}
	if exponential, ok := own.(retry.Exponential); ok {
		policy.Jitter = exponential.Jitter
	}
	return policy
}

// Breaker is base with the threshold, the sample and the time that a breaker
// stays open. It does so whether or not the feature is on: Consumer leaves the
// breakers out.
func (s Settings) Breaker(base breaker.Config) breaker.Config {
	base.Threshold = s.CircuitBreakerFailureThreshold
	base.SampleSize = s.CircuitBreakerSampleSize
	base.OpenFor = s.CircuitBreakerTimeout
	return base
}

// Consumer is base with what s governs; every other field is left as it is.
//
// Retry becomes the policy of s, with the Jitter that base has if it is
// a retry.Exponential. IdempotencyWindow and, with a Store, AckTimeout become those
// of s; the stores must come from the host. What Validate finds wrong with s
// NewConsumer reports. Where base has neither Breaker nor KeyBreakers,
// it gets breakers made by s: one for each key if it has a BreakerKey, else one.
// The host's own breakers stay; make them with Settings.Breaker.
//
// A feature that is off takes out the host's part, too: Idempotency takes out the
// idempotency store and what belongs to it, CircuitBreaker all breakers and BreakerKey. Acknowledgment off
// makes AckTimeout negative; RetryWorker off makes Store one of RecordsOnly.
func (s Settings) Consumer(base ConsumerConfig) ConsumerConfig {
	base.Retry = s.retryLike(base.Retry)
	base.IdempotencyWindow = s.IdempotencyTTL
	if !s.Features.Idempotency {
		base.Idempotency, base.IdempotencyKey, base.IdempotencyLease, base.FailOpen = nil, nil, 0, false
	}
	base.settings, base.managed = s.Validate(), true
	base.Store = s.store(base.Store)
	if base.Store != nil || !s.Features.Acknowledgment {
		base.AckTimeout = s.ackTimeout()
	}
	own := s.Breaker(breaker.Config{
		Name: base.Name,
		// A probe is one run of the handler, and has a little time to report.
		ProbeTimeout: max(breaker.DefaultProbeTimeout, base.HandlerTimeout+30*time.Second),
		Logger:       base.Logger,
	})
	switch {
	case !s.Features.CircuitBreaker:
		base.Breaker, base.KeyBreakers, base.BreakerKey = nil, nil, nil
	case base.Breaker != nil || base.KeyBreakers != nil:
	case base.BreakerKey != nil:
		base.KeyBreakers = breaker.NewSet(breaker.SetConfig{Breaker: own})
	default:
		base.Breaker = breaker.New(own)
	}
	return base
}

// store is the host's own, as it is used by publishers and consumers.
func (s Settings) store(own Store) Store {
	if !s.Features.RetryWorker {
		return RecordsOnly(own)
	}
	return own
}

// ackTimeout is negative while no acknowledgments are awaited.
func (s Settings) ackTimeout() time.Duration {
	if !s.Features.Acknowledgment {
		return -1
	}
	return s.AcknowledgmentTimeout
}

// Publisher is base with what s governs; every other field is left as it is.
//
// IdempotencyTTL and BatchSizeLimit become those of s; the stores must come from
// the host. A feature that is off takes out the host's part, too: Idempotency the
// idempotency store and its lease. PriorityQueues off sets OnePriority, Batch off NoBatch;
// RetryWorker off makes Store one of RecordsOnly, which has neither PendingGrace nor
// MaxOutgoing.
func (s Settings) Publisher(base PublisherConfig) PublisherConfig {
	base.settings, base.managed = s.Validate(), true
	base.IdempotencyTTL = s.IdempotencyTTL
	if !s.Features.Idempotency {
		base.Idempotency, base.IdempotencyLease = nil, 0
	}
	base.BatchSizeLimit = s.BatchSizeLimit
	base.NoBatch = base.NoBatch || !s.Features.Batch
	base.OnePriority = base.OnePriority || !s.Features.PriorityQueues
	base.Store = s.store(base.Store)
	if !s.Features.RetryWorker {
		base.PendingGrace, base.MaxOutgoing = 0, 0
	}
	return base
}

// RetryWorker is base with what s governs; every other field is left as it is.
// Retry becomes the policy of s, with the Jitter that base has if it is
// a retry.Exponential. RecordRetention and DeadLetterRetention become those of s.
// Acknowledgment off sets IgnoreAckTimeouts.
//
// It does so whether or not the feature RetryWorker is on: run the worker only
// if it is.
func (s Settings) RetryWorker(base RetryWorkerConfig) RetryWorkerConfig {
	base.settings, base.managed = s.Validate(), true
	base.Retry = s.retryLike(base.Retry)
	base.RecordRetention, base.DeadLetterRetention = s.RecordRetention, s.DeadLetterRetention
	if s.RecordRetention == 0 {
		base.RecordRetention = -1
	}
	base.IgnoreAckTimeouts = base.IgnoreAckTimeouts || !s.Features.Acknowledgment
	return base
}
