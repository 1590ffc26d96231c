package breaker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// model is what a Breaker should be, in the plainest terms.
type model struct {
	config    Config
	state     State
	since     int           // how many changes there were
	now       time.Duration // from the start
	outcomes  []bool        // true is a failure
	until     time.Duration // of the open or forced state, 0 for no end
	forced    bool
	held      bool
	wanted    bool
	probes    []*modelPermit // let through in this half-open state
	successes int
	changes   []Change
	start     time.Time
}

type modelPermit struct {
	given    Permit
	since    int
	deadline time.Duration // of a probe
	reported bool
}

func (m *model) become(state State, cause Cause) {
	m.changes = append(m.changes, Change{Name: m.config.Name, From: m.state, To: state, At: m.start.Add(m.now), Cause: cause})
	m.state = state
	m.anew()
	if state == Open {
		m.until = m.now + m.config.OpenFor + 1
	}
	m.wanted = m.wanted && state != Closed
}

// anew is what the end of a force closed and any change have in common.
func (m *model) anew() {
	m.since++
	m.outcomes, m.probes, m.successes = nil, nil, 0
	m.until, m.forced = 0, false
}

// told is Trip and Reset.
func (m *model) told(state State, d time.Duration) {
	if m.forced {
		return
	}
	if m.state != state {
		m.become(state, CauseTold)
	}
	if state == Open {
		m.until = m.now + max(d, 1) + 1
	}
}

func (m *model) force(state State, d time.Duration) {
	if m.state != state {
		m.become(state, CauseForced)
	}
	m.forced, m.until = true, 0
	if d > 0 {
		m.until = m.now + d + 1
	}
}

func (m *model) release() {
	switch {
	case m.forced && m.state == Open:
		m.until = m.now + 2
	case m.forced:
		m.anew()
	}
}

// advance lets time pass up to a moment, event by event.
func (m *model) advance(to time.Duration) {
	for {
		event, at := func() {}, to+1
		switch {
		case m.until == 0:
		case m.state == Open:
			event, at = func() { m.become(HalfOpen, CauseOwn) }, m.until
		default:
			event, at = m.anew, m.until
		}
		for _, probe := range m.probes {
			if !probe.reported && probe.deadline < at {
				event, at = func() { m.report(probe, Abandoned) }, probe.deadline
			}
		}
		if at > to {
			m.now = to
			return
		}
		m.now = at
		event()
	}
}

func (m *model) allows() bool {
	return m.state == Closed || m.state == HalfOpen && !m.held && len(m.probes) < m.config.Probes
}

func (m *model) allow(given Permit) *modelPermit {
	permit := &modelPermit{given: given, since: m.since}
	if m.state == HalfOpen {
		permit.deadline = m.now + m.config.ProbeTimeout
		m.probes = append(m.probes, permit)
	}
	return permit
}

func (m *model) report(permit *modelPermit, outcome Outcome) {
	if permit.reported {
		return
	}
	permit.reported = true
	if permit.since != m.since || m.forced {
		return
	}
	if m.state == HalfOpen {
		if outcome == Failure || outcome == Abandoned {
			m.become(Open, CauseOwn)
		} else if m.successes++; m.successes == m.config.Probes {
			m.become(Closed, CauseOwn)
		}
		return
	}
	if outcome == Answered || outcome == Abandoned {
		return
	}
	m.outcomes = append(m.outcomes, outcome == Failure)
	if len(m.outcomes) < m.config.SampleSize {
		return
	}
	last := m.outcomes[len(m.outcomes)-m.config.SampleSize:]
	failures := 0
	for _, failed := range last {
		if failed {
			failures++
		}
	}
	if float64(failures)/float64(len(last)) >= m.config.Threshold {
		m.become(Open, CauseOwn)
	}
}

func TestBreakerBehavesLikeTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			config := Config{
				Name:         "model",
				Threshold:    rapid.SampledFrom([]float64{0.1, 0.3, 0.5, 0.75, 1}).Draw(t, "threshold"),
				SampleSize:   rapid.IntRange(1, 6).Draw(t, "sample size"),
				OpenFor:      30 * time.Second,
				Probes:       rapid.IntRange(1, 3).Draw(t, "probes"),
				ProbeTimeout: rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute}).Draw(t, "probe timeout"),
			}
			m := &model{config: config, start: time.Now()}
			var changes record[Change]
			config.OnChange = changes.add
			b := New(config)
			var permits []*modelPermit

			t.Repeat(map[string]func(*rapid.T){
				"allow": func(t *rapid.T) {
					permit, err := b.Allow()
					if !m.allows() {
						require.ErrorIs(t, err, ErrOpen)
						var refusal *OpenError
						require.ErrorAs(t, err, &refusal)
						require.Equal(t, m.forced, refusal.Forced)
						require.Equal(t, max(m.until-m.now, 0), refusal.RetryIn)
						m.wanted = true
						return
					}
					require.NoError(t, err)
					permits = append(permits, m.allow(permit))
				},
				"report": func(t *rapid.T) {
					if len(permits) == 0 {
						return
					}
					permit := rapid.SampledFrom(permits).Draw(t, "permit")
					outcome := rapid.SampledFrom([]Outcome{Success, Failure, Failure, Answered, Abandoned}).Draw(t, "outcome")
					permit.given.Done(outcome)
					m.report(permit, outcome)
				},
				"pass time": func(t *rapid.T) {
					d := rapid.SampledFrom([]time.Duration{1, time.Second - 1, time.Second, 30 * time.Second, 30*time.Second + 1, time.Hour}).Draw(t, "time")
					time.Sleep(d)
					synctest.Wait()
					m.advance(m.now + d)
				},
				"override": func(t *rapid.T) {
					d := rapid.SampledFrom([]time.Duration{0, 1, time.Second, time.Minute}).Draw(t, "for")
					switch rapid.IntRange(0, 6).Draw(t, "override") {
					case 0:
						b.ForceOpen(d)
						m.force(Open, d)
					case 1:
						b.ForceClosed(d)
						m.force(Closed, d)
					case 2:
						b.Release()
						m.release()
					case 3:
						b.Trip(d)
						m.told(Open, d)
					case 4:
						b.Reset()
						m.told(Closed, 0)
					case 5:
						b.HoldProbes(true)
						m.held = true
					case 6:
						b.HoldProbes(false)
						m.wanted = m.wanted && !m.held
						m.held = false
					}
				},
				"": func(t *rapid.T) {
					status := Status{State: m.state, Forced: m.forced, Wanted: m.wanted, Probing: len(m.probes) - m.successes}
					if m.until != 0 {
						status.Until = m.start.Add(m.until)
					}
					require.Equal(t, status, b.Status())
					require.Equal(t, m.state, b.State())
					require.Equal(t, m.allows(), b.blocked() == nil)
					m.wanted = m.wanted || !m.allows()
					require.Equal(t, m.changes, changes.all())
				},
			})
		})
	})
}
