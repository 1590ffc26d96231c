package delivery

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/metrics"
)

// delaying is a Transport that can delay, plain one that can't, fading one whose
// messages end with the process.
type (
	delaying struct{ Transport }
	plain    struct{ Transport }
	fading   struct{ delaying }
)

func (delaying) SendAfter(context.Context, time.Duration, []Envelope) []error { return nil }
func (fading) Session() string                                                { return "session" }

// What becomes of each outcome, with and without a store, is written down here
// once more.
func TestPlanFor(t *testing.T) {
	type setting struct {
		transport Transport
		config    ConsumerConfig
		ordered   bool
	}
	var (
		store    struct{ Store }
		cause    = errors.New("cause")
		at       = time.Unix(1000, 0)
		first    = Envelope{Message: Message{ID: "m", Recipient: "r", RequireAck: true}, Attempt: 2, Generation: 1}
		next     = first.failed(at, cause)
		ending   = Envelope{Message: Message{ID: "m", Recipient: "r", ExpiresAt: at.Add(time.Hour)}, Attempt: 2, Generation: 1}
		stored   = setting{transport: delaying{}, config: ConsumerConfig{Store: store}}
		bare     = setting{transport: delaying{}}
		recorded = setting{transport: delaying{}, config: ConsumerConfig{Store: RecordsOnly(store)}}
		without  = setting{transport: plain{}}
		inOrder  = setting{transport: delaying{}, config: ConsumerConfig{Store: store}, ordered: true}
		awaits   = setting{transport: delaying{}, config: ConsumerConfig{Store: store, AckTimeout: time.Minute}}
		failure  = &Failure{At: at, Attempt: 3, Error: "cause"}
	)
	for name, test := range map[string]struct {
		outcome outcome
		in      setting

		route    route
		delay    time.Duration
		gate     gate
		counted  string
		letter   bool
		resend   bool
		update   *Update // but for ID, Generation and At; nil: none
		isHome   bool
		key      keyStep
		knownToo bool // a message without a record gets none
		resumes  bool // with the failure counted, if there is one

		notBefore time.Time // of what goes on
	}{
		"delivered": {
			outcome: outcome{kind: outcomeDelivered}, in: bare,
			counted: metrics.OutcomeDelivered, key: keyStep{do: keyComplete},
		},
		"delivered, recorded": {
			outcome: outcome{kind: outcomeDelivered}, in: stored,
			counted: metrics.OutcomeDelivered, key: keyStep{do: keyComplete}, update: &Update{Status: StatusDelivered, RetryCount: 2},
		},
		"sent, to be acknowledged": {
			outcome: outcome{kind: outcomeDelivered}, in: awaits,
			counted: metrics.OutcomeDelivered, key: keyStep{do: keySchedule, attempt: 3, delay: time.Minute},
			update: &Update{Status: StatusSent, RetryCount: 2, DueAt: at.Add(time.Minute)},
		},
		"duplicate repairs the record": {
			outcome: outcome{kind: outcomeDuplicate, err: cause}, in: stored,
			counted: metrics.OutcomeDuplicate, update: &Update{Status: StatusDelivered, RetryCount: 2}, knownToo: true,
		},
		"duplicate of another message": {
			outcome: outcome{kind: outcomeDuplicate, err: cause, of: "other"}, in: stored,
			counted: metrics.OutcomeDuplicate, knownToo: true,
			update: &Update{Status: StatusDuplicate, RetryCount: 2, Failure: &Failure{At: at, Attempt: 3, Error: "delivery: duplicate of message other"}},
		},
		"failed, delayed by the transport": {
			outcome: outcome{kind: outcomeFailed, delay: time.Hour, next: &next, err: cause}, in: bare,
			counted: metrics.OutcomeRetried, resend: true, key: keyStep{do: keySchedule, attempt: 3, delay: time.Hour},
		},
		"failed, delayed by the store": {
			outcome: outcome{kind: outcomeFailed, delay: time.Hour, next: &next, err: cause}, in: stored,
			counted: metrics.OutcomeRetried, key: keyStep{do: keySchedule, attempt: 3, delay: time.Hour},
			update: &Update{Status: StatusRetrying, RetryCount: 3, DueAt: at.Add(time.Hour), Failure: failure}, isHome: true,
		},
		"failed, nobody delays": {
			outcome: outcome{kind: outcomeFailed, delay: time.Hour, next: &next, err: cause}, in: without,
			route: routeHold, delay: time.Hour, counted: metrics.OutcomeRetried, resumes: true,
		},
		"failed, in order": {
			outcome: outcome{kind: outcomeFailed, delay: time.Hour, next: &next, err: cause}, in: inOrder,
			route: routeHold, delay: time.Hour, counted: metrics.OutcomeRetried, resumes: true,
		},
		"given up": {
			outcome: outcome{kind: outcomeGivenUp, reason: ReasonExhausted, next: &next, err: cause}, in: stored,
			counted: metrics.OutcomeDeadLettered, letter: true, key: keyStep{do: keyComplete},
			update: &Update{Status: StatusFailed, RetryCount: 3, Failure: failure},
		},
		"malformed has no record": {
			outcome: outcome{kind: outcomeGivenUp, reason: ReasonMalformed, next: &next, err: cause}, in: stored,
			counted: metrics.OutcomeDeadLettered, letter: true, key: keyStep{do: keyComplete},
		},
		"postponed by the transport": {
			outcome: outcome{kind: outcomePostponed, delay: time.Hour, next: &first}, in: bare,
			counted: metrics.OutcomeDeferred, resend: true, key: keyStep{attempt: 2, delay: time.Hour},
		},
		"postponed by the store": {
			outcome: outcome{kind: outcomePostponed, delay: time.Hour, next: &first, err: cause}, in: stored,
			counted: metrics.OutcomeDeferred, update: &Update{Status: StatusRetrying, RetryCount: 2, DueAt: at.Add(time.Hour)}, isHome: true,
			key: keyStep{attempt: 2, delay: time.Hour},
		},
		"postponed for a moment": {
			outcome: outcome{kind: outcomePostponed, delay: time.Second, next: &first}, in: stored,
			route: routeHold, delay: time.Second, counted: metrics.OutcomeDeferred,
		},
		"postponed by a breaker, in order": {
			outcome: outcome{kind: outcomePostponed, delay: time.Hour, next: &first, err: cause}, in: inOrder,
			route: routeHold, delay: time.Hour, counted: metrics.OutcomeDeferred,
		},
		"scheduled, in order": {
			outcome: outcome{kind: outcomePostponed, delay: time.Hour, next: &first}, in: inOrder,
			counted: metrics.OutcomeDeferred, update: &Update{Status: StatusRetrying, RetryCount: 2, DueAt: at.Add(time.Hour)}, isHome: true,
			key: keyStep{attempt: 2, delay: time.Hour},
		},
		"suspected": {
			outcome: outcome{kind: outcomeSuspected, next: &next}, in: stored,
			resend: true, counted: metrics.OutcomeDeferred, key: keyStep{attempt: 3},
		},
		"busy": {
			outcome: outcome{kind: outcomeBusy, delay: time.Second, err: cause}, in: stored,
			route: routeHold, delay: time.Second, counted: metrics.OutcomeDeferred,
		},
		"breaker open": {
			outcome: outcome{kind: outcomeBreakerOpen, err: cause}, in: stored,
			route: routeRequeue, gate: gateBreaker, counted: metrics.OutcomeDeferred,
		},
		"idempotency store down": {
			outcome: outcome{kind: outcomeKeysDown, err: cause}, in: stored,
			route: routeRequeue, gate: gateIdempotency, counted: metrics.OutcomeDeferred,
		},
		"abandoned": {
			outcome: outcome{kind: outcomeAbandoned, err: cause}, in: stored,
			route: routeGiveBack, counted: metrics.OutcomeAbandoned,
		},
		"overtaken by another attempt": {
			outcome: outcome{kind: outcomeOvertaken, err: cause}, in: stored, counted: metrics.OutcomeDuplicate, key: keyStep{attempt: 2},
		},
		"overtaken for good": {
			outcome: outcome{kind: outcomeOvertaken, err: cause, final: true}, in: stored,
			counted: metrics.OutcomeDuplicate, key: keyStep{do: keyComplete, attempt: 2},
		},
		"put off by the handler, to the transport": {
			outcome: outcome{kind: outcomeLater, delay: time.Hour, next: &first, err: cause}, in: bare,
			counted: metrics.OutcomePostponed, resend: true, notBefore: at.Add(time.Hour), key: keyStep{attempt: 2, delay: time.Hour},
		},
		"put off by the handler, to the store": {
			outcome: outcome{kind: outcomeLater, delay: time.Hour, next: &first, err: cause}, in: stored,
			counted: metrics.OutcomePostponed, key: keyStep{attempt: 2, delay: time.Hour},
			update: &Update{Status: StatusRetrying, RetryCount: 2, DueAt: at.Add(time.Hour)}, isHome: true,
		},
		"put off by the handler, with records only": {
			outcome: outcome{kind: outcomeLater, delay: time.Hour, next: &first, err: cause}, in: recorded,
			counted: metrics.OutcomePostponed, resend: true, notBefore: at.Add(time.Hour), key: keyStep{attempt: 2, delay: time.Hour},
		},
		"put off by the handler, but not over its end": {
			outcome: outcome{kind: outcomeLater, delay: 2 * time.Hour, next: &ending, err: cause}, in: bare,
			counted: metrics.OutcomePostponed, resend: true, notBefore: ending.ExpiresAt, key: keyStep{attempt: 2, delay: 2 * time.Hour},
		},
		"put off by the handler, for a moment": {
			outcome: outcome{kind: outcomeLater, delay: time.Second, next: &first, err: cause}, in: stored,
			route: routeHold, delay: time.Second, counted: metrics.OutcomePostponed, resumes: true,
		},
		"put off by the handler, in order": {
			outcome: outcome{kind: outcomeLater, delay: time.Hour, next: &first, err: cause}, in: inOrder,
			route: routeHold, delay: time.Hour, counted: metrics.OutcomePostponed, resumes: true,
		},
		"put off by the handler, nobody delays": {
			outcome: outcome{kind: outcomeLater, delay: time.Hour, next: &first, err: cause}, in: without,
			route: routeHold, delay: time.Hour, counted: metrics.OutcomePostponed, resumes: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &inflight{envelope: &first, came: first.Attempt}
			if test.in.ordered {
				m.recipient = "r"
			}
			test.outcome.at = at
			got := newPlanner(&test.in.config, test.in.transport).planFor(m, test.outcome)

			assert.Equal(t, test.route, got.route)
			assert.Equal(t, test.delay, got.delay)
			assert.Equal(t, test.gate, got.gate)
			assert.Equal(t, test.counted, got.counted)
			assert.Equal(t, test.letter, got.letter != nil)
			assert.Equal(t, test.resend, got.resend)
			assert.Equal(t, test.isHome, got.updateIsHome)
			assert.Equal(t, test.key, got.key)
			assert.Equal(t, test.knownToo, got.knownOnly)
			assert.Equal(t, test.resumes, got.resume != nil)
			if test.outcome.kind == outcomeLater {
				assert.Equal(t, test.notBefore, got.outcome.next.NotBefore)
				assert.Equal(t, first.Attempt, got.outcome.next.Attempt)
				assert.Zero(t, first.NotBefore, "changed in place")
			}
			assert.Equal(t, test.outcome.kind == outcomeDelivered, got.success)
			if test.update == nil {
				require.Nil(t, got.update)
				return
			}
			test.update.ID, test.update.Generation, test.update.At = "m", 1, at
			if test.letter {
				require.NotEmpty(t, got.letter.ID)
				test.update.DeadLetterID = got.letter.ID
			}
			assert.Equal(t, test.update, got.update)
		})
	}
}

// What waits in a transport that ends with the process stays claimed by it.
func TestPlanForAVolatileTransport(t *testing.T) {
	at := time.Unix(1000, 0)
	first := Envelope{Message: Message{ID: "m", Recipient: "r"}}
	next := first.failed(at, errors.New("cause"))
	config := ConsumerConfig{Store: RecordsOnly(struct{ Store }{})}
	got := newPlanner(&config, fading{}).planFor(&inflight{envelope: &first},
		outcome{kind: outcomeFailed, at: at, delay: time.Hour, next: &next, err: errors.New("cause")})
	assert.True(t, got.resend)
	assert.Equal(t, StatusQueued, got.update.Status)
	assert.Equal(t, "session", got.update.ClaimedBy)
	assert.Equal(t, at.Add(time.Hour+sessionHold), got.update.DueAt)
}
