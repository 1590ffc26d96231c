package idempotencytest

import (
	"fmt"
	"math/rand/v2"

	"github.com/esh3artech/barid/idempotency"
)

// modelKey is what the contract says about one key, without expiry.
type modelKey struct {
	state   string
	holder  string
	attempt int
}

// testModel takes long random walks of steps on a few keys by a few holders,
// all walks at once, and compares each answer with the model's. The seeds are
// fixed.
func testModel(h *harness) {
	const walks, length = 10, 200
	h.atOnce(walks, func(seed int) error {
		random := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // a fixed seed
		names := []string{h.newKey(), h.newKey()}
		keys := []modelKey{{state: "absent"}, {state: "absent"}}
		for step := range length {
			i := random.IntN(len(names))
			if err := h.walk(names[i], &keys[i], random); err != nil {
				return fmt.Errorf("seed %d, step %d, key was %+v: %w", seed, step, keys[i], err)
			}
		}
		return nil
	})
}

func (h *harness) walk(name string, key *modelKey, random *rand.Rand) error {
	token := fmt.Sprint("holder ", random.IntN(3))
	attempt := random.IntN(4)
	mine := key.holder == token
	held := key.state == "leased" && mine
	lost := idempotency.ErrLost
	next := *key
	var err error
	switch random.IntN(8) {
	case 0, 1, 2:
		want, holder := key.claim(token, attempt)
		err = h.claim(name, token, attempt, long, want, holder)
		if want == idempotency.Claimed {
			next = modelKey{state: "leased", holder: token}
		}
	case 3:
		err = h.renew(name, token, long, unless(held, lost))
	case 4:
		completion := idempotency.InTime
		switch {
		case key.state == "absent":
			completion = idempotency.Late
			next = modelKey{state: "done", holder: token}
		case key.state != "done" && mine:
			next = modelKey{state: "done", holder: token}
		}
		err = h.complete(name, token, long, completion, unless(mine || key.state == "done" || key.state == "absent", lost))
	case 5:
		scheduled := key.state == "retry" && mine
		if held || scheduled {
			next = modelKey{state: "retry", holder: token, attempt: attempt}
		}
		err = h.schedule(name, token, attempt, long, unless(held || scheduled, lost))
	default:
		if held {
			next = modelKey{state: "absent"}
		}
		err = h.release(name, token, unless(held || key.state == "absent", lost))
	}
	if err == nil {
		*key = next
	}
	return err
}

func (k *modelKey) claim(token string, attempt int) (idempotency.State, string) {
	switch {
	case k.state == "done":
		return idempotency.Done, k.holder
	case k.state == "leased" && k.holder != token:
		return idempotency.Busy, k.holder
	case k.state == "retry" && attempt < k.attempt:
		return idempotency.Stale, k.holder
	}
	return idempotency.Claimed, token
}

func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}
