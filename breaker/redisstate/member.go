package redisstate

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"github.com/esh3artech/barid/breaker"
)

// maxUnused bounds how often the time that a lease is kept unused doubles.
const maxUnused = 10

// member is one shared breaker. Syncs, of which one runs at a time, use all of it
// without a lock but for unheard, which the breaker's observer writes.
type member struct {
	breaker *breaker.Breaker
	key     string

	mu      sync.Mutex
	unheard *ownChange // what the fleet hasn't heard of; nil if there is nothing

	sent   *ownChange // what the command that is under way tells
	event  string     // the last one that this breaker has followed
	force  record     // the last force that it has followed; none if forceID is empty
	lost   bool       // Redis has no record, though there should be one
	leased bool       // this instance may probe
	since  time.Time  // since when
	asked  bool       // others would like to
	unused int        // how often the lease was given back unused, while half-open
}

// ownChange is a change that the breaker has made by itself.
type ownChange struct {
	state breaker.State
	id    string
}

// changed is the breaker's observer. It says whether the fleet should hear soon.
func (m *member) changed(change breaker.Change) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unheard = nil
	if change.Cause != breaker.CauseOwn {
		return false
	}
	if change.To != breaker.HalfOpen { // which is time's doing, and known to all
		m.unheard = &ownChange{state: change.To, id: rand.Text()}
	}
	return true
}

// unheardChange is what the fleet has still to hear of.
func (m *member) unheardChange() *ownChange {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unheard
}

// heard drops the change that was sent, and says whether there is none since.
func (m *member) heard() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unheard == m.sent {
		m.unheard = nil
	}
	return m.unheard == nil
}

// next is what to tell Redis, or at least to ask.
func (m *member) next(f *Fleet, now time.Time) command {
	status := m.breaker.Status()
	c := command{key: m.key, op: opRead, by: f.config.Instance, known: m.event, token: f.token}
	m.sent = m.unheardChange()
	if status.Forced {
		m.sent = nil
		if m.lost && m.force.forceID != "" {
			c.op, c.lost, c.id = opForce, true, m.force.forceID
			c.force, c.by, c.reason = m.force.force, m.force.forceBy, m.force.forceReason
			c.length = remaining(status.Until, now)
		}
		return c
	}
	switch {
	case status.State == breaker.Open && m.sent != nil && m.sent.state == breaker.Open:
		c.op, c.id, c.length = opTrip, m.sent.id, max(remaining(status.Until, now), 1)
	case status.State == breaker.Open && m.lost:
		c.op, c.lost, c.id, c.length = opTrip, true, rand.Text(), max(remaining(status.Until, now), 1)
	case status.State == breaker.Closed && m.sent != nil && m.sent.state == breaker.Closed:
		c.op, c.id = opClose, m.sent.id
	case status.State == breaker.HalfOpen:
		m.probe(f, &c, status, now)
	}
	if m.sent != nil && c.id != m.sent.id {
		m.sent = nil // the state has changed again, which the observer is about to be told
	}
	return c
}

// probe asks for the lease of a half-open breaker when calls want it, and then
// keeps it until the outcome is known. If others ask for it while nobody here has
// anything to probe with, it is given back after a while. That while gets longer
// each time, because two instances with few calls could otherwise give it to each
// other again and again and never use it.
func (m *member) probe(f *Fleet, c *command, status breaker.Status, now time.Time) {
	switch {
	case m.leased && m.asked && status.Probing == 0 && now.Sub(m.since) >= f.config.Lease<<min(m.unused, maxUnused):
		// As of now no call here can become a probe, unless one just has.
		m.breaker.HoldProbes(true)
		if m.breaker.Status().Probing == 0 {
			m.unused++
			c.op = opLeave
			return
		}
	case !m.leased && !status.Wanted && status.Probing == 0:
		return
	}
	c.op, c.length, c.id = opLease, f.config.Lease, m.event
	if c.id == "" {
		c.id = rand.Text()
	}
}

// detach has the breaker go on by itself, as Redis doesn't answer.
func (m *member) detach() {
	m.leased = false
	m.breaker.HoldProbes(false)
}

// follow brings the breaker to what the record says. c is the command that the
// record answers.
func (m *member) follow(f *Fleet, c command, r record, sent time.Time) {
	m.lost = !r.found()
	if !m.leased {
		m.breaker.HoldProbes(true) // before anything makes it half-open
	}
	switch {
	case r.force != "":
		if r.forceID != m.force.forceID {
			m.followForce(f, r)
		}
		m.heard()
	case m.lost:
		if !m.breaker.Status().Forced {
			m.force = record{}
		}
	default:
		if m.force.forceID != "" {
			m.force = record{}
			m.breaker.Release()
		}
		m.followState(r)
	}
	m.asked = r.asked
	halfOpen := m.breaker.State() == breaker.HalfOpen
	switch {
	case !halfOpen:
		m.leased, m.unused = false, 0
	case c.op == opLease && r.granted:
		if !m.leased {
			m.leased, m.since = true, sent
		}
	default:
		m.leased = false
	}
	m.breaker.HoldProbes(!m.leased)
}

// followForce is for a force that the breaker has not followed yet.
func (m *member) followForce(f *Fleet, r record) {
	m.force = r
	if r.force == stateOpen {
		m.breaker.ForceOpen(r.forceLeft)
	} else {
		m.breaker.ForceClosed(r.forceLeft)
	}
	f.config.Logger.LogAttrs(context.Background(), slog.LevelWarn, "breaker forced",
		slog.String("breaker", m.breaker.Name()), slog.String("state", r.force), slog.String("by", r.forceBy), slog.String("reason", r.forceReason))
}

// followState makes the fleet's state the breaker's, unless an operator's local
// force or a change that this instance has still to tell of comes first.
func (m *member) followState(r record) {
	status := m.breaker.Status()
	if !m.heard() || status.Forced {
		return
	}
	known := m.event
	m.event = r.event
	switch {
	case r.event == known || m.sent != nil && r.event == m.sent.id:
	case r.state == stateClosed:
		m.breaker.Reset()
	case r.left > 0:
		m.breaker.Trip(r.left)
	case status.State != breaker.HalfOpen:
		m.breaker.Trip(0)
	}
}

// remaining is how long it is until then; 0 if there is no end.
func remaining(until, now time.Time) time.Duration {
	if until.IsZero() {
		return 0
	}
	return max(until.Sub(now), 1)
}
