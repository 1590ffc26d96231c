package delivery

import (
	"context"
	"sync"
	"time"
)

// alarm wakes one sleeper at a time that may be moved forward while it sleeps.
type alarm struct {
	bell chan struct{} // holds at most one

	mu sync.Mutex
	at time.Time // zero: not set
}

func newAlarm() *alarm { return &alarm{bell: make(chan struct{}, 1)} }

// ring sets the alarm to at, unless it is set to an earlier time. It never
// blocks.
func (a *alarm) ring(at time.Time) {
	if a.set(at) {
		select {
		case a.bell <- struct{}{}:
		default:
		}
	}
}

func (a *alarm) set(at time.Time) (earlier bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() && !at.Before(a.at) {
		return false
	}
	a.at = at
	return true
}

// reset forgets the time.
func (a *alarm) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = time.Time{}
	select {
	case <-a.bell:
	default:
	}
}

// sleep sleeps until latest or an earlier time that the alarm is set to, but not
// less than until earliest. It returns false when ctx ends.
func (a *alarm) sleep(ctx context.Context, earliest, latest time.Time) bool {
	a.set(latest)
	timer := time.NewTimer(time.Until(a.time(earliest)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return ctx.Err() == nil
		case <-a.bell:
			timer.Reset(time.Until(a.time(earliest)))
		}
	}
}

func (a *alarm) time(earliest time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.Before(earliest) {
		return earliest
	}
	return a.at
}
