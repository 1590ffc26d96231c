package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/metrics"
)

// plan is what becomes of a message after an outcome. It is made once and not
// changed; another outcome makes another plan.
type plan struct {
	outcome outcome
	route   route
	delay   time.Duration // for how long to hold it
	resume  *Envelope     // what it goes on as after the hold; nil: as it is
	gate    gate          // to shut before it is requeued

	// Of a message that is settled: its next home, what its record and its key
	// become, and what is counted and logged after the ack.
	letter       *DeadLetter // its home is the dead-letter store
	resend       bool        // its home is the transport, after the outcome's delay
	update       *Update     // of its record; nil: none
	updateIsHome bool        // the record, from which a RetryWorker sends it, is its home
	knownOnly    bool        // a message without a record gets none
	key          keyStep
	success      bool // the effect is done
	counted      string
	event        string // empty: not logged
	severity     slog.Level
}

// route is where a message goes.
type route int

const (
	routeSettle   route = iota // it is done here
	routeHold                  // it stays in hand for the delay
	routeRequeue               // back to the queue, when a gate has been shut
	routeGiveBack              // it is left for redelivery
)

// keyStep is what becomes of the claim on a message's key.
type keyStep struct {
	do      keyAction
	attempt int           // keyRelease, keySchedule: the next attempt's number, from 0
	delay   time.Duration // keyRelease, keySchedule: when that is
}

type keyAction int

const (
	keyRelease  keyAction = iota // another copy of the attempt may be handled, whose start is not counted
	keyComplete                  // other copies are duplicates
	keySchedule                  // copies of earlier attempts are stale
)

// planner knows what becomes of an outcome: all of it is said here.
type planner struct {
	config  *ConsumerConfig
	delays  bool   // a message can be put somewhere until its time comes
	session string // of a Volatile transport, else empty
}

func newPlanner(config *ConsumerConfig, transport Transport) *planner {
	_, able := transport.(Delayer)
	return &planner{config: config, delays: able || config.schedules(), session: sessionOf(transport)}
}

// planFor plans what becomes of a message.
func (p *planner) planFor(m *inflight, o outcome) plan {
	switch o.kind {
	case outcomeDelivered:
		return p.deliver(m, o)
	case outcomeDuplicate:
		return p.suppress(m, o)
	case outcomeOvertaken:
		overtaken := plan{outcome: o, key: keyStep{attempt: m.came}, counted: metrics.OutcomeDuplicate}
		if o.final {
			overtaken.key.do = keyComplete
		}
		return overtaken
	case outcomeFailed:
		return p.retry(m, o)
	case outcomeGivenUp:
		return p.giveUp(m, o)
	case outcomePostponed:
		return p.postpone(m, o)
	case outcomeLater:
		return p.later(m, o)
	case outcomeSuspected:
		return plan{outcome: o, resend: true, key: keyStep{attempt: o.next.Attempt}, counted: metrics.OutcomeDeferred}
	case outcomeBusy:
		return plan{outcome: o, route: routeHold, delay: o.delay, counted: metrics.OutcomeDeferred}
	case outcomeBreakerOpen:
		return plan{outcome: o, route: routeRequeue, gate: gateBreaker, counted: metrics.OutcomeDeferred}
	case outcomeKeysDown:
		return plan{outcome: o, route: routeRequeue, gate: gateIdempotency, counted: metrics.OutcomeDeferred}
	default:
		return plan{outcome: o, route: routeGiveBack, counted: metrics.OutcomeAbandoned}
	}
}

func (p *planner) deliver(m *inflight, o outcome) plan {
	delivered := plan{
		outcome: o, update: p.done(m, o), key: keyStep{do: keyComplete}, success: true,
		counted: metrics.OutcomeDelivered, event: "message delivered", severity: slog.LevelInfo,
	}
	if p.config.awaitsAck(&m.envelope.Message) {
		// If the end user does not acknowledge it, the next attempt must not be
		// taken for a copy of this one.
		delivered.key = keyStep{do: keySchedule, attempt: m.envelope.Attempt + 1, delay: p.config.AckTimeout}
	}
	return delivered
}

func (p *planner) suppress(m *inflight, o outcome) plan {
	// The first copy's process may have died between the key and the record.
	duplicate := plan{outcome: o, update: p.done(m, o), knownOnly: true, counted: metrics.OutcomeDuplicate}
	if o.of != "" && duplicate.update != nil {
		// What became of the other message is not what became of this one.
		duplicate.update.Status, duplicate.update.DueAt = StatusDuplicate, time.Time{}
		duplicate.update.Failure = &Failure{At: o.at, Attempt: m.attempt(), Error: "delivery: duplicate of message " + shorten(o.of)}
	}
	return duplicate
}

func (p *planner) retry(m *inflight, o outcome) plan {
	failed := plan{outcome: o, counted: metrics.OutcomeRetried, event: "retry scheduled", severity: slog.LevelWarn}
	if m.recipient != "" || !p.delays {
		// The failure is counted in hand only. The key must not be scheduled: the
		// message in the transport is the old one.
		failed.route, failed.delay, failed.resume = routeHold, o.delay, o.next
		return failed
	}
	failed.key = keyStep{do: keySchedule, attempt: o.next.Attempt, delay: o.delay}
	p.sendLater(m, &failed)
	if failed.resend && p.config.Store != nil {
		failed.update = p.goesOn(m, o, StatusQueued, time.Time{})
		if p.session != "" {
			failed.update.ClaimedBy, failed.update.DueAt = p.session, o.at.Add(o.delay+sessionHold)
		}
	}
	return failed
}

func (p *planner) postpone(m *inflight, o outcome) plan {
	// A recipient's order forbids to let others pass a message whose breaker is open.
	inOrder := m.recipient != "" && o.err != nil
	if !p.delays || o.delay <= time.Second || inOrder {
		return plan{outcome: o, route: routeHold, delay: o.delay, counted: metrics.OutcomeDeferred}
	}
	later := plan{outcome: o, key: keyStep{attempt: o.next.Attempt, delay: o.delay}, counted: metrics.OutcomeDeferred}
	p.sendLater(m, &later)
	return later
}

// later is postpone for a message whose handler asked for it.
func (p *planner) later(m *inflight, o outcome) plan {
	later := plan{outcome: o, key: keyStep{attempt: o.next.Attempt, delay: o.delay}, counted: metrics.OutcomePostponed, event: "message postponed", severity: slog.LevelInfo}
	if m.recipient != "" || !p.delays || o.delay <= time.Second {
		later.route, later.delay, later.resume, later.key = routeHold, o.delay, o.next, keyStep{}
		return later
	}
	p.sendLater(m, &later)
	if later.resend {
		// The transport may bring it early, when the delay is over what it can do.
		next := *o.next
		if next.NotBefore = o.at.Add(o.delay); !next.ExpiresAt.IsZero() && next.NotBefore.After(next.ExpiresAt) {
			next.NotBefore = next.ExpiresAt
		}
		later.outcome.next = &next
	}
	return later
}

// sendLater has the message sent after the outcome's delay: by a RetryWorker from
// the store, or else by the transport.
func (p *planner) sendLater(m *inflight, later *plan) {
	o := later.outcome
	if p.config.schedules() {
		later.update, later.updateIsHome = p.goesOn(m, o, StatusRetrying, o.at.Add(o.delay)), true
	} else {
		later.resend = true
	}
}

func (p *planner) giveUp(m *inflight, o outcome) plan {
	letter := newDeadLetter(p.config.Name, o.next, o.reason, o.err, o.at)
	letter.Raw = o.raw
	givenUp := plan{
		outcome: o, letter: &letter, key: keyStep{do: keyComplete},
		counted: metrics.OutcomeDeadLettered, event: "message dead-lettered", severity: slog.LevelError,
	}
	if p.config.Store != nil && o.reason != ReasonMalformed {
		givenUp.update = p.goesOn(m, o, StatusFailed, time.Time{})
		givenUp.update.DeadLetterID = letter.ID
	}
	return givenUp
}

// asideDelay is for how long, at least, a message stays away that made room.
const asideDelay = 10 * time.Second

// stepAside is the outcome of a message that was held and may be no longer: because
// it has held up its recipient for too long, or because the room is needed. It
// returns false where the message can be nowhere else.
func (p *planner) stepAside(m *inflight, o outcome) (outcome, bool) {
	copied := o.kind == outcomeBusy // another copy is being handled: no order is at stake
	if m.recipient != "" && !copied && p.config.OnHoldExceeded == HoldDeadLetter {
		o.kind, o.reason = outcomeGivenUp, ReasonExhausted
		o.err = fmt.Errorf("delivery: held up its recipient for too long: %w", o.err)
		return o, true
	}
	if copied {
		o.kind, o.next = outcomePostponed, m.envelope
	}
	o.delay = max(o.delay, m.tick().Sub(o.at)+asideDelay)
	return o, p.delays
}

// done is the update by which the effect is done.
func (p *planner) done(m *inflight, o outcome) *Update {
	if p.config.Store == nil {
		return nil
	}
	update := Update{
		ID: m.envelope.ID, Status: StatusDelivered, Queue: p.config.Name,
		Generation: m.envelope.Generation, RetryCount: m.envelope.Attempt, At: o.at,
	}
	if p.config.awaitsAck(&m.envelope.Message) {
		update.Status, update.DueAt = StatusSent, o.at.Add(p.config.AckTimeout)
	}
	return &update
}

// goesOn is the update by which the message goes on as the outcome's next, with
// the failure if an attempt was made.
func (p *planner) goesOn(m *inflight, o outcome, status Status, due time.Time) *Update {
	update := Update{
		ID: o.next.ID, Status: status, Queue: p.config.Name, Generation: o.next.Generation, RetryCount: o.next.Attempt,
		At: o.at, DueAt: due,
	}
	if o.err != nil && o.kind != outcomePostponed && o.kind != outcomeLater {
		update.Failure = &Failure{At: o.at, Attempt: m.attempt(), Error: shorten(textOf(o.err))}
	}
	return &update
}

// log says what becomes of the message.
func (p *plan) log(ctx context.Context, logger *slog.Logger, m *inflight) {
	if p.event != "" && logger.Enabled(ctx, p.severity) { // spares the attributes
		logger.LogAttrs(ctx, p.severity, p.event, p.attributes(m)...)
	}
}

func (p *plan) attributes(m *inflight) []slog.Attr {
	attributes := []slog.Attr{slog.String("message_id", m.id()), slog.Int("attempt", m.attempt())}
	if p.letter != nil {
		attributes = append(attributes, slog.String("dead_letter_id", p.letter.ID))
	}
	if p.outcome.reason != "" {
		attributes = append(attributes, slog.String("reason", string(p.outcome.reason)))
	}
	if p.outcome.delay > 0 {
		attributes = append(attributes, slog.Duration("delay", p.outcome.delay))
	}
	if p.outcome.err != nil {
		attributes = append(attributes, errorAttr(p.outcome.err))
	}
	return attributes
}
