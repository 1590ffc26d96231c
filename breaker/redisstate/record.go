package redisstate

import (
	"errors"
	"strconv"
	"time"

	"github.com/esh3artech/barid/breaker"
)

// The states as Redis has them.
const (
	stateOpen   = "open"
	stateClosed = "closed"
)

// record is what the script answers.
type record struct {
	state string // empty if there is no state (yet)
	event string
	by    string
	age   time.Duration
	left  time.Duration // of open; 0 or less is half-open

	force       string // empty if there is none
	forceID     string
	forceBy     string
	forceAge    time.Duration
	forceLeft   time.Duration // 0 is no limit
	forceReason string

	prober  string
	granted bool // the lease
	asked   bool // others would like to have it
}

const answerLength = 14

var errAnswer = errors.New("redisstate: Redis answered what the script does not")

func decode(answer []string) (record, error) {
	if len(answer) != answerLength {
		return record{}, errAnswer
	}
	r := record{
		state: answer[0], event: answer[1], by: answer[2],
		force: answer[5], forceID: answer[6], forceBy: answer[7], forceReason: answer[10],
		prober: answer[11], granted: answer[12] == "1", asked: answer[13] == "1",
	}
	var faults [4]error
	r.age, faults[0] = milliseconds(answer[3])
	r.left, faults[1] = milliseconds(answer[4])
	r.forceAge, faults[2] = milliseconds(answer[8])
	r.forceLeft, faults[3] = milliseconds(answer[9])
	if errors.Join(faults[:]...) != nil {
		return record{}, errAnswer
	}
	return r, nil
}

// found says whether there is a record at all.
func (r record) found() bool { return r.state != "" || r.force != "" }

// view is the record by the clock of this process.
func (r record) view(now time.Time) View {
	v := View{Known: r.found(), Prober: r.prober}
	if r.state != "" {
		v.By, v.At = r.by, now.Add(-r.age)
	}
	switch {
	case r.state == stateOpen && r.left > 0:
		v.State, v.Until = breaker.Open, now.Add(r.left)
	case r.state == stateOpen:
		v.State = breaker.HalfOpen
	}
	if r.force == "" {
		return v
	}
	v.State, v.Until = breaker.Closed, time.Time{}
	if r.force == stateOpen {
		v.State = breaker.Open
	}
	v.Forced = true
	v.By, v.At, v.Reason = r.forceBy, now.Add(-r.forceAge), r.forceReason
	if r.forceLeft > 0 {
		v.Until = now.Add(r.forceLeft)
	}
	return v
}

func milliseconds(text string) (time.Duration, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(ms) * time.Millisecond, err
}
