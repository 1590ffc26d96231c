package idempotencytest

import (
	"math"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// A retry is durable, but the acknowledgment of the failed attempt is lost: the
// old copy comes again at any time, and must never start a second chain.
func testFence(h *harness) {
	key := h.newKey()
	h.must(
		h.claim(key, "run 0", 0, long, idempotency.Claimed, "run 0"),
		h.schedule(key, "run 0", 1, long, nil),
		h.claim(key, "copy of 0", 0, long, idempotency.Stale, "run 0"),
		h.claim(key, "run 1", 1, long, idempotency.Claimed, "run 1"),
		h.claim(key, "copy of 0", 0, long, idempotency.Busy, "run 1"),
		h.schedule(key, "run 1", 2, long, nil),
		h.claim(key, "copy of 0", 0, long, idempotency.Stale, "run 1"),
		h.claim(key, "copy of 1", 1, long, idempotency.Stale, "run 1"),
		h.claim(key, "run 2", 2, long, idempotency.Claimed, "run 2"),
		h.complete(key, "run 2", long, idempotency.InTime, nil),
		h.claim(key, "copy of 1", 1, long, idempotency.Done, "run 2"),
		h.claim(key, "copy of 2", 2, long, idempotency.Done, "run 2"),
	)
}

func testFenceBounds(h *harness) {
	for _, attempt := range []int{0, 1, 2, 9, 10, 11, 99, 100, math.MaxInt32 - 1} {
		key := h.newKey()
		h.must(
			h.claim(key, own, 0, long, idempotency.Claimed, own),
			h.schedule(key, own, attempt, long, nil),
			h.claim(key, another, attempt-1, long, idempotency.Stale, own),
			h.claim(key, another, attempt+1, long, idempotency.Claimed, another),
			h.schedule(key, another, attempt, long, nil),
			h.claim(key, own, attempt, long, idempotency.Claimed, own),
		)
	}
}

// Clients send a command again when its answer got lost. So each step is taken twice
// here, or comes again after the next one.
func testReplays(h *harness) {
	completed := h.newKey()
	h.must(
		h.claim(completed, own, 0, long, idempotency.Claimed, own),
		h.claim(completed, own, 0, long, idempotency.Claimed, own),
		h.renew(completed, own, long, nil),
		h.renew(completed, own, long, nil),
		h.complete(completed, own, long, idempotency.InTime, nil),
		h.complete(completed, own, long, idempotency.InTime, nil),
		h.renew(completed, own, long, idempotency.ErrLost),
		h.claim(completed, own, 0, long, idempotency.Done, own),
		h.isIn(completed, "done", own),
	)
	scheduled := h.newKey()
	h.must(
		h.claim(scheduled, own, 0, long, idempotency.Claimed, own),
		h.schedule(scheduled, own, fence, long, nil),
		h.schedule(scheduled, own, fence, long, nil),
		h.renew(scheduled, own, long, idempotency.ErrLost),
		h.claim(scheduled, own, 0, long, idempotency.Stale, own),
		h.isIn(scheduled, "retry", own),
		h.schedule(scheduled, own, fence, long, idempotency.ErrLost), // looker holds it now
		h.claim(scheduled, another, fence, long, idempotency.Busy, looker),
	)
	released := h.newKey()
	h.must(
		h.claim(released, own, 0, long, idempotency.Claimed, own),
		h.release(released, own, nil),
		h.release(released, own, nil),
		h.renew(released, own, long, idempotency.ErrLost),
		h.claim(released, another, 0, long, idempotency.Claimed, another),
		h.release(released, own, idempotency.ErrLost),
		h.isIn(released, "leased", another),
	)
	// After a Schedule without an answer the work turns out to be done.
	changed := h.newKey()
	h.must(
		h.claim(changed, own, 0, long, idempotency.Claimed, own),
		h.schedule(changed, own, fence, long, nil),
		h.schedule(changed, own, fence+1, long, nil),
		h.claim(changed, another, fence, long, idempotency.Stale, own),
		h.complete(changed, own, long, idempotency.InTime, nil),
		h.isIn(changed, "done", own),
	)
}

func testDurations(h *harness) {
	const years = 200 * 365 * 24 * time.Hour
	key := h.newKey()
	h.must(
		h.claim(key, own, 0, years, idempotency.Claimed, own),
		h.renew(key, own, years, nil),
		h.complete(key, own, years, idempotency.InTime, nil),
		h.isIn(key, "done", own),
	)
	// Rounded down to 0 it would never be leased, or never end.
	tiny := h.newKey()
	h.must(
		h.claim(tiny, own, 0, time.Nanosecond, idempotency.Claimed, own),
		h.passed(10*time.Millisecond),
		h.claim(tiny, another, 0, long, idempotency.Claimed, another),
	)
}
