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
	openUntil time.Duration
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

func (m *model) become(state State) {
	m.changes = append(m.changes, Change{Name: m.config.Name, From: m.state, To: state, At: m.start.Add(m.now)})
	m.state = state
	m.since++
	m.outcomes, m.probes, m.successes = nil, nil, 0
	if state == Open {
		m.openUntil = m.now + m.config.OpenFor + 1
	}
}

// advance lets time pass up to a moment, event by event.
func (m *model) advance(to time.Duration) {
	for {
		event, at := func() {}, to+1
		if m.state == Open {
			event, at = func() { m.become(HalfOpen) }, m.openUntil
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
	return m.state == Closed || m.state == HalfOpen && len(m.probes) < m.config.Probes
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
	if permit.since != m.since {
		return
	}
	if m.state == HalfOpen {
		if outcome == Failure || outcome == Abandoned {
			m.become(Open)
		} else if m.successes++; m.successes == m.config.Probes {
			m.become(Closed)
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
		m.become(Open)
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
						if m.state == Open {
							require.Equal(t, m.openUntil-m.now, refusal.RetryIn)
						} else {
							require.Zero(t, refusal.RetryIn)
						}
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
				"": func(t *rapid.T) {
					require.Equal(t, m.state, b.State())
					require.Equal(t, m.allows(), b.blocked() == nil)
					require.Equal(t, m.changes, changes.all())
				},
			})
		})
	})
}
