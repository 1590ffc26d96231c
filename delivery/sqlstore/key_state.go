package sqlstore

import (
	"math"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// keyAction is a method of idempotency.Store.
type keyAction int

const (
	claimKey keyAction = iota
	renewKey
	completeKey
	scheduleKey
	releaseKey
)

func (a keyAction) String() string {
	return [...]string{"claim", "renew", "complete", "schedule", "release"}[a]
}

// keyCall is one call for one key on its way through the writer, with its
// results.
type keyCall struct {
	action     keyAction
	key, token string
	attempt    int
	duration   time.Duration

	answer     idempotency.Answer
	completion idempotency.Completion
	refusal    error
}

// keyPhase is one of the four states of idempotency.Store.
type keyPhase int64

const (
	keyAbsent keyPhase = iota
	keyLeased
	keyRetry
	keyDone
)

// keyState is what is stored of a key.
type keyState struct {
	phase   keyPhase
	token   string
	attempt int   // the next attempt, in keyRetry
	expires int64 // in microseconds
}

// at is the state at a time. An expired key is absent.
func (k keyState) at(now int64) keyState {
	if k.phase == keyAbsent || k.expires <= now {
		return keyState{}
	}
	return k
}

// apply executes a call at a time, by the table of idempotency.Store, and
// returns the state after it.
func (k keyState) apply(call *keyCall, now int64) keyState {
	call.answer, call.completion, call.refusal = idempotency.Answer{}, idempotency.InTime, nil
	k = k.at(now)
	own := k.phase != keyAbsent && k.token == call.token
	becomes := func(phase keyPhase, attempt int) keyState {
		return keyState{phase: phase, token: call.token, attempt: attempt, expires: after(now, call.duration)}
	}
	switch call.action {
	case claimKey:
		return k.claimed(call, own, becomes)
	case renewKey:
		if k.phase == keyLeased && own {
			return becomes(keyLeased, 0)
		}
		call.refusal = idempotency.ErrLost
	case completeKey:
		switch {
		case k.phase == keyDone:
		case k.phase == keyAbsent:
			call.completion = idempotency.Late
			return becomes(keyDone, 0)
		case own:
			return becomes(keyDone, 0)
		default:
			call.refusal = idempotency.ErrLost
		}
	case scheduleKey:
		if own && (k.phase == keyLeased || k.phase == keyRetry) {
			return becomes(keyRetry, call.attempt)
		}
		call.refusal = idempotency.ErrLost
	case releaseKey:
		switch {
		case k.phase == keyAbsent:
		case own && k.phase == keyLeased:
			return keyState{}
		default:
			call.refusal = idempotency.ErrLost
		}
	}
	return k
}

// claimed is apply for a claim.
func (k keyState) claimed(call *keyCall, own bool, becomes func(keyPhase, int) keyState) keyState {
	switch {
	case k.phase == keyDone:
		call.answer = idempotency.Answer{State: idempotency.Done, Holder: k.token}
	case k.phase == keyLeased && !own:
		call.answer = idempotency.Answer{State: idempotency.Busy, Holder: k.token}
	case k.phase == keyRetry && call.attempt < k.attempt:
		call.answer = idempotency.Answer{State: idempotency.Stale, Holder: k.token}
	default:
		call.answer = idempotency.Answer{State: idempotency.Claimed, Holder: call.token}
		return becomes(keyLeased, 0)
	}
	return k
}

// after is the time, in microseconds, that is d after now, or the last time
// there is.
func after(now int64, d time.Duration) int64 {
	micros := int64(d / time.Microsecond)
	if d%time.Microsecond != 0 {
		micros++
	}
	if micros > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + micros
}
