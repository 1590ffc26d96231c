package idempotencytest

import (
	"time"

	"github.com/esh3artech/barid/idempotency"
)

func testLeaseExpires(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.claim(key, another, 0, lease, idempotency.Busy, own),
			h.passed(lease),
			h.claim(key, another, 0, long, idempotency.Claimed, another),
		)
	})
}

func testWindowExpires(h *harness) {
	h.within(func(key string, window time.Duration) error {
		return first(
			h.claim(key, own, 0, long, idempotency.Claimed, own),
			h.complete(key, own, window, idempotency.InTime, nil),
			h.claim(key, another, 0, long, idempotency.Done, own),
			h.passed(window),
			h.claim(key, another, 0, long, idempotency.Claimed, another),
		)
	})
}

func testFenceExpires(h *harness) {
	h.within(func(key string, ttl time.Duration) error {
		return first(
			h.claim(key, own, 0, long, idempotency.Claimed, own),
			h.schedule(key, own, fence, ttl, nil),
			h.claim(key, another, 0, long, idempotency.Stale, own),
			h.passed(ttl),
			h.claim(key, another, 0, long, idempotency.Claimed, another),
		)
	})
}

func testRenewExtends(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.renew(key, own, long, nil),
			h.passed(lease),
			h.claim(key, another, 0, long, idempotency.Busy, own),
			h.renew(key, own, long, nil),
		)
	})
}

func testClaimExtends(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.claim(key, own, 0, long, idempotency.Claimed, own),
			h.passed(lease),
			h.claim(key, another, 0, long, idempotency.Busy, own),
		)
	})
}

func testCompleteExtends(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.complete(key, own, long, idempotency.InTime, nil),
			h.passed(lease),
			h.claim(key, another, 0, long, idempotency.Done, own),
		)
	})
}

func testScheduleExtends(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.schedule(key, own, fence, long, nil),
			h.passed(lease),
			h.claim(key, another, fence-1, long, idempotency.Stale, own),
		)
	})
}

// Steps that are refused must not extend the state.
func testRefusedStepsKeepExpiry(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		leased := key + "/leased"
		completed := key + "/done"
		return first(
			h.claim(leased, own, 0, lease, idempotency.Claimed, own),
			h.claim(leased, another, 0, long, idempotency.Busy, own),
			h.renew(leased, another, long, idempotency.ErrLost),
			h.complete(leased, another, long, 0, idempotency.ErrLost),
			h.schedule(leased, another, fence, long, idempotency.ErrLost),

			h.claim(completed, own, 0, long, idempotency.Claimed, own),
			h.complete(completed, own, lease, idempotency.InTime, nil),
			h.complete(completed, own, long, idempotency.InTime, nil),
			h.claim(completed, another, 0, long, idempotency.Done, own),

			h.passed(lease),
			h.claim(leased, another, 0, long, idempotency.Claimed, another),
			h.claim(completed, another, 0, long, idempotency.Claimed, another),
		)
	})
}

func testStepsAfterExpiry(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		expired := func(suffix string) error {
			return h.claim(key+suffix, own, 0, lease, idempotency.Claimed, own)
		}
		return first(
			expired("/renew"), expired("/complete"), expired("/schedule"), expired("/release"),
			h.passed(lease),
			h.renew(key+"/renew", own, long, idempotency.ErrLost),
			h.isIn(key+"/renew", "absent", ""),
			h.complete(key+"/complete", own, long, idempotency.Late, nil),
			h.isIn(key+"/complete", "done", own),
			h.schedule(key+"/schedule", own, fence, long, idempotency.ErrLost),
			h.isIn(key+"/schedule", "absent", ""),
			h.release(key+"/release", own, nil),
			h.isIn(key+"/release", "absent", ""),
		)
	})
}

// A holder whose lease has ended must not disturb the one that has taken over.
func testLeasePassesOn(h *harness) {
	h.within(func(key string, lease time.Duration) error {
		return first(
			h.claim(key, own, 0, lease, idempotency.Claimed, own),
			h.passed(lease),
			h.claim(key, another, 0, long, idempotency.Claimed, another),
			h.renew(key, own, long, idempotency.ErrLost),
			h.complete(key, own, long, 0, idempotency.ErrLost),
			h.schedule(key, own, fence, long, idempotency.ErrLost),
			h.release(key, own, idempotency.ErrLost),
			h.claim(key, own, 0, long, idempotency.Busy, another),
			h.complete(key, another, long, idempotency.InTime, nil),
			h.complete(key, own, long, idempotency.InTime, nil),
			h.isIn(key, "done", another),
		)
	})
}
