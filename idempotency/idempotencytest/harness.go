package idempotencytest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// Harness is a store under test.
type Harness struct {
	// Store is the store. Required. It may hold other keys, because the suite makes
	// keys that no earlier run has used.
	Store idempotency.Store
	// Advance lets d pass for the store. Default: really waiting.
	Advance func(d time.Duration)
	// Short is the lease of the tests that wait for its end. On a machine that is too
	// slow to take two steps within it, the suite tries longer ones. Default 100 ms.
	Short time.Duration
}

// TestStore runs the suite, each test on a store of its own from open, which
// cleans up by t.Cleanup. open may call t.Parallel, which helps when the store
// is far away.
func TestStore(t *testing.T, open func(t *testing.T) Harness) {
	for _, test := range tests() {
		t.Run(test.name, func(t *testing.T) { run(t, open, test.run) })
	}
}

// TestStoreInBubbles is TestStore with each test, including open, in a bubble of
// testing/synctest, where waiting takes no time. The store must not communicate with
// anything outside of the bubble.
func TestStoreInBubbles(t *testing.T, open func(t *testing.T) Harness) {
	for _, test := range tests() {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, open, test.run) })
		})
	}
}

type storeTest struct {
	name string
	run  func(h *harness)
}

func tests() []storeTest {
	return append(tableTests(), []storeTest{
		{"claim again after the lease", testLeaseExpires},
		{"claim again after the window", testWindowExpires},
		{"claim again after the fence", testFenceExpires},
		{"renew keeps the lease", testRenewExtends},
		{"a repeated claim renews the lease", testClaimExtends},
		{"complete outlives the lease", testCompleteExtends},
		{"schedule outlives the lease", testScheduleExtends},
		{"a refused step leaves the expiry alone", testRefusedStepsKeepExpiry},
		{"steps after the lease", testStepsAfterExpiry},
		{"the lease passes on", testLeasePassesOn},
		{"one chain of retries", testFence},
		{"fence of many attempts", testFenceBounds},
		{"repeated commands", testReplays},
		{"one of many claimers wins", testConcurrentClaims},
		{"claimers pass the key around", testContention},
		{"keys do not meet", testKeys},
		{"tokens are opaque", testTokens},
		{"long and short durations", testDurations},
		{"invalid arguments", testInvalid},
		{"ended contexts", testContexts},
		{"random steps", testModel},
	}...)
}

func run(t *testing.T, open func(t *testing.T) Harness, test func(h *harness)) {
	opened := open(t)
	if opened.Store == nil {
		t.Fatal("Harness.Store is nil")
	}
	if opened.Advance == nil {
		opened.Advance = func(d time.Duration) { <-time.After(d) }
	}
	if opened.Short <= 0 {
		opened.Short = 100 * time.Millisecond
	}
	test(&harness{T: t, Harness: opened, prefix: fmt.Sprintf("%s/%d/", t.Name(), time.Now().UnixNano())})
}

// harness is a Harness within one test.
type harness struct {
	*testing.T
	Harness
	prefix string
	keys   atomic.Int64
	// started and took tell within how long a body's steps before the wait took.
	started time.Time
	took    time.Duration
}

// long is a lease that does not end within a test.
const long = 10 * time.Minute

// newKey returns a key that was never used.
func (h *harness) newKey() string {
	return fmt.Sprint(h.prefix, h.keys.Add(1))
}

// within runs body, which has to do its steps within lease for what it checks
// to be true. If it fails and took too long for that, it is tried again with a
// new key and a longer lease.
func (h *harness) within(body func(key string, lease time.Duration) error) {
	h.Helper()
	for lease := h.Short; ; lease *= 2 {
		h.started, h.took = time.Now(), 0
		err := body(h.newKey(), lease)
		if err == nil {
			return
		}
		if h.took == 0 {
			h.took = time.Since(h.started)
		}
		if h.took < lease/2 || lease > long/4 {
			h.Fatal(err)
		}
	}
}

// passed lets a lease end for sure. Its error is that the test was ended.
func (h *harness) passed(lease time.Duration) error {
	h.took = time.Since(h.started)
	h.Advance(lease + lease/5 + 5*time.Millisecond)
	return h.Context().Err()
}

// atOnce runs n bodies at once, and fails the test with the first error.
func (h *harness) atOnce(n int, body func(i int) error) {
	h.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = body(i) })
	}
	all.Wait()
	h.must(errs...)
}

// claim and the others below check a step's answer.

func (h *harness) claim(key, token string, attempt int, lease time.Duration, want idempotency.State, holder string) error {
	answer, err := h.Store.Claim(h.Context(), key, token, attempt, lease)
	if err != nil {
		return fmt.Errorf("claim by %q of attempt %d: %w", token, attempt, err)
	}
	if answer.State != want {
		return fmt.Errorf("claim by %q of attempt %d: answer is %v, want %v", token, attempt, answer.State, want)
	}
	if answer.Holder != holder && (answer.Holder != "" || want == idempotency.Claimed) {
		return fmt.Errorf("claim by %q of attempt %d: %v, holder is %q, want %q", token, attempt, want, answer.Holder, holder)
	}
	return nil
}

func (h *harness) renew(key, token string, lease time.Duration, want error) error {
	return matches("renew by "+token, h.Store.Renew(h.Context(), key, token, lease), want)
}

func (h *harness) complete(key, token string, window time.Duration, completion idempotency.Completion, want error) error {
	got, err := h.Store.Complete(h.Context(), key, token, window)
	if err := matches("complete by "+token, err, want); err != nil {
		return err
	}
	if want == nil && got != completion {
		return fmt.Errorf("complete by %q: %v, want %v", token, got, completion)
	}
	return nil
}

func (h *harness) schedule(key, token string, attempt int, ttl time.Duration, want error) error {
	return matches("schedule by "+token, h.Store.Schedule(h.Context(), key, token, attempt, ttl), want)
}

func (h *harness) release(key, token string, want error) error {
	return matches("release by "+token, h.Store.Release(h.Context(), key, token), want)
}

// must fails the test with the first error.
func (h *harness) must(errs ...error) {
	h.Helper()
	if err := first(errs...); err != nil {
		h.Fatal(err)
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
