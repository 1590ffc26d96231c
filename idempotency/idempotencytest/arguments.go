package idempotencytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// strange is text that stores may take for something else or cut off.
func strange() []string {
	return []string{
		"a", "A", "a ", " a", "a\x00", "a\x00b", "\x00", "a\n", "a\r\n", "\xff\xfe", "é", "e\u0301", "ß", "ss",
		"'; --", `"`, `\`, "%", "_", "*", "?", "[a]", "{a}", "{a}b", "a:b", "a::b", ":", "a:0", "0", "00", "-1", "NULL", "nil",
		strings.Repeat("k", 255), strings.Repeat("k", 256), strings.Repeat("\x80", 1000), strings.Repeat("k", 8<<10),
	}
}

func testKeys(h *harness) {
	prefix := h.newKey()
	keys := strange()
	for i, key := range keys {
		token := fmt.Sprint("holder ", i)
		if err := h.claim(prefix+key, token, 0, long, idempotency.Claimed, token); err != nil {
			h.Fatalf("key %.40q: %v", key, err)
		}
	}
	for i, key := range keys {
		if err := h.complete(prefix+key, fmt.Sprint("holder ", i), long, idempotency.InTime, nil); err != nil {
			h.Fatalf("key %.40q: %v", key, err)
		}
		if err := h.isIn(prefix+key, "done", fmt.Sprint("holder ", i)); err != nil {
			h.Fatalf("key %.40q: %v", key, err)
		}
	}
}

func testTokens(h *harness) {
	tokens := strange()
	h.atOnce(len(tokens), func(i int) error {
		token := tokens[i]
		leased, scheduled, completed := h.newKey(), h.newKey(), h.newKey()
		err := first(
			h.claim(leased, token, 0, long, idempotency.Claimed, token),
			h.claim(leased, token, 0, long, idempotency.Claimed, token),
			h.renew(leased, token, long, nil),
			h.renew(leased, token+"x", long, idempotency.ErrLost),
			h.release(leased, "x"+token, idempotency.ErrLost),
			h.isIn(leased, "leased", token),
			h.release(leased, token, nil),

			h.claim(scheduled, token, 0, long, idempotency.Claimed, token),
			h.schedule(scheduled, token, fence, long, nil),
			h.schedule(scheduled, token+"x", fence, long, idempotency.ErrLost),
			h.schedule(scheduled, token, fence, long, nil),
			h.isIn(scheduled, "retry", token),

			h.claim(completed, token, 0, long, idempotency.Claimed, token),
			h.complete(completed, token, long, idempotency.InTime, nil),
			h.isIn(completed, "done", token),
		)
		if err != nil {
			return fmt.Errorf("token %.40q: %w", token, err)
		}
		return nil
	})
}

// steps calls every method once.
func steps(h *harness, ctx context.Context, key, token string, d time.Duration) map[string]error { //nolint:revive // h is the receiver in all but name
	_, claimErr := h.Store.Claim(ctx, key, token, 0, d)
	_, completeErr := h.Store.Complete(ctx, key, token, d)
	return map[string]error{
		"Claim":    claimErr,
		"Renew":    h.Store.Renew(ctx, key, token, d),
		"Complete": completeErr,
		"Schedule": h.Store.Schedule(ctx, key, token, 1, d),
		"Release":  h.Store.Release(ctx, key, token),
	}
}

func testInvalid(h *harness) {
	for _, test := range []struct {
		name       string
		key, token string
		duration   time.Duration
	}{
		{"empty key", "", own, long},
		{"empty token", h.newKey(), "", long},
		{"zero duration", h.newKey(), own, 0},
		{"negative duration", h.newKey(), own, -time.Second},
	} {
		for name, err := range steps(h, h.Context(), test.key, test.token, test.duration) {
			if name == "Release" && test.duration <= 0 {
				continue
			}
			if !errors.Is(err, idempotency.ErrInvalid) {
				h.Errorf("%s with %s: error is %v, want %v", name, test.name, err, idempotency.ErrInvalid)
			}
		}
		if test.key != "" {
			h.must(h.isIn(test.key, "absent", ""))
		}
	}
}

func testContexts(h *harness) {
	cancelled, cancel := context.WithCancel(h.Context())
	cancel()
	expired, cancelExpired := context.WithTimeout(h.Context(), -time.Second)
	defer cancelExpired()
	for _, test := range []struct {
		ctx  context.Context
		want error
	}{{cancelled, context.Canceled}, {expired, context.DeadlineExceeded}} {
		key := h.newKey()
		for name, err := range steps(h, test.ctx, key, own, long) {
			if !errors.Is(err, test.want) || errors.Is(err, idempotency.ErrUnavailable) {
				h.Errorf("%s: error is %v, want %v, bare", name, err, test.want)
			}
		}
		// A context that had ended before is no reason for a lease.
		h.must(h.isIn(key, "absent", ""))
	}
}
