package redisstate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/breaker"
)

// maxForce bounds a force that ends by itself, as breaker bounds its times.
const maxForce = 365 * 24 * time.Hour

// Force says how an operator forces a breaker. The zero value forces until it
// is released.
type Force struct {
	// For is how long; then the force ends by itself. At most a year. Default 0:
	// until Release.
	For time.Duration
	// By names the operator, for View and logs. At most 1000 bytes. Default: the
	// Config's Instance.
	By string
	// Reason is why, for View and logs. At most 1000 bytes. Default: none.
	Reason string
}

// View is what Redis knows of a breaker. Its times are by this process's clock. An
// instance may be behind what it says by Config.Every, or by more while it can't
// reach Redis.
type View struct {
	// Known says that there is a record. There is none until the breaker opens or
	// is forced, and none any more a day after the last end that it tells of.
	Known bool
	// State is what instances follow: Closed, Open, or HalfOpen when the time of
	// Open is up and no probe has reported yet.
	State breaker.State
	// Until is when Open or a force ends by itself; zero if it doesn't.
	Until time.Time
	// By names the instance or operator that made it so, by tripping, probing or
	// forcing, and At is when.
	By string
	At time.Time
	// Forced says that State is an operator's, and Reason why.
	Forced bool
	Reason string
	// Prober is the instance that has the lease to probe; empty if none has.
	Prober string
}

// ForceOpen has all instances refuse the calls of the named breaker. Those that
// run do so within Config.Every, those that are away or not yet started as soon as
// they read Redis. It replaces an earlier force. When it returns nil, Redis has
// the force. This process needs no breaker of the name, and no Run.
//
// The errors match ErrConfig, ErrUnavailable or ctx's own error.
func (f *Fleet) ForceOpen(ctx context.Context, name string, force Force) error {
	return f.force(ctx, name, stateOpen, force)
}

// ForceClosed has all instances allow every call of the named breaker, whatever
// comes of them, and is otherwise like ForceOpen.
func (f *Fleet) ForceClosed(ctx context.Context, name string, force Force) error {
	return f.force(ctx, name, stateClosed, force)
}

// Release ends a force: what was forced open becomes half-open, what was forced
// closed becomes closed. by names the operator, by default the Config's Instance,
// in at most 1000 bytes. Without a force it does nothing. Its errors are those of
// ForceOpen.
func (f *Fleet) Release(ctx context.Context, name, by string) error {
	force := Force{By: by}
	if err := f.check(name, &force); err != nil {
		return err
	}
	_, err := f.do(ctx, command{key: f.key(name), op: opRelease, by: force.By})
	f.syncSoon()
	return err
}

// View reads what Redis knows of the named breaker. Its errors are those of
// ForceOpen.
func (f *Fleet) View(ctx context.Context, name string) (View, error) {
	if err := f.check(name, &Force{}); err != nil {
		return View{}, err
	}
	r, err := f.do(ctx, command{key: f.key(name), op: opRead})
	if err != nil {
		return View{}, err
	}
	return r.view(time.Now()), nil
}

func (f *Fleet) force(ctx context.Context, name, state string, force Force) error {
	if err := f.check(name, &force); err != nil {
		return err
	}
	_, err := f.do(ctx, command{
		key: f.key(name), op: opForce, id: rand.Text(), force: state,
		by: force.By, length: force.For, reason: force.Reason,
	})
	f.syncSoon()
	return err
}

// check reports every fault of what an operator asks for, and fills in By.
func (f *Fleet) check(name string, force *Force) error {
	if err := f.Err(); err != nil {
		return err
	}
	if force.By == "" {
		force.By = f.config.Instance
	}
	var faults []error
	if name == "" {
		faults = append(faults, fmt.Errorf("%w: name is empty, want a breaker's", ErrConfig))
	}
	if force.For < 0 || force.For > maxForce {
		faults = append(faults, fmt.Errorf("%w: Force.For is %v, want 0 to %v", ErrConfig, force.For, maxForce))
	}
	for _, text := range []struct{ what, value string }{{"name", name}, {"Force.By", force.By}, {"Force.Reason", force.Reason}} {
		if len(text.value) > maxText {
			faults = append(faults, fmt.Errorf("%w: %s has %d bytes, want at most %d", ErrConfig, text.what, len(text.value), maxText))
		}
	}
	return errors.Join(faults...)
}

// do is one command of an operator's.
func (f *Fleet) do(ctx context.Context, c command) (record, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	bounded, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	answers, err := f.exchange(ctx, bounded, []command{c}, func() {})
	if err == nil && answers[0].err == nil {
		return answers[0].record, nil
	}
	if err == nil {
		err = answers[0].err
	}
	return record{}, f.unavailable(ctx, err)
}
