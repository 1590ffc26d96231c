package deliverytest

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"
)

// subtest is one subtest of a suite. It differs from a *testing.T in two ways.
// After the test's end it reports nothing, because goroutines of a transport or
// store that hung must not make the other tests fail by a panic. And it knows
// for how long it makes sense to wait.
type subtest struct {
	*testing.T
	patience time.Duration

	mu    sync.Mutex
	ended bool
}

func newSubtest(t *testing.T, patience time.Duration) *subtest {
	s := &subtest{T: t, patience: patience}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
	})
	return s
}

// Errorf is testing's, except that it reports nothing after the test's end.
func (t *subtest) Errorf(format string, args ...any) {
	t.Helper()
	t.report(format, args...)
}

// Fatalf is testing's, except that it reports nothing after the test's end. It
// ends the goroutine that calls it, which need not be the test's.
func (t *subtest) Fatalf(format string, args ...any) {
	t.Helper()
	if !t.report(format, args...) {
		runtime.Goexit()
	}
	t.FailNow()
}

// report reports an error while the test runs, and returns whether it runs.
func (t *subtest) report(format string, args ...any) bool {
	t.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.T.Errorf(format, args...)
	}
	return !t.ended
}

// boundedContext is a context that ends when the patience does.
func (t *subtest) boundedContext() context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), t.patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls holds until it returns nil.
func (t *subtest) eventually(what string, holds func() error) {
	t.Helper()
	ctx := t.boundedContext()
	for {
		err := holds()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: not within %s: %v", what, t.patience, err)
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// checkReturns runs what has to return without help.
func (t *subtest) checkReturns(what string, run func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run()
	}()
	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s hangs: %s", what, stacks())
	}
}

// sleep returns after d, or earlier when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
