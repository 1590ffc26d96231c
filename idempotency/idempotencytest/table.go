package idempotencytest

import (
	"errors"
	"fmt"

	"github.com/esh3artech/barid/idempotency"
)

// The tokens of the table: the one that brought the state about, another one, and
// the one by which the suite looks at a key's state.
const (
	own     = "own"
	another = "another"
	looker  = "looker"
)

// state is one that a key can be in.
type state struct {
	name string
	// reach brings a new key into the state on behalf of own.
	reach func(h *harness, key string) error
}

// fence is the attempt that the state "retry" waits for.
const fence = 3

func states() []state {
	claimed := func(h *harness, key string) error {
		return h.claim(key, own, 0, long, idempotency.Claimed, own)
	}
	return []state{
		{"absent", func(*harness, string) error { return nil }},
		{"leased", claimed},
		{"retry", func(h *harness, key string) error {
			return first(claimed(h, key), h.schedule(key, own, fence, long, nil))
		}},
		{"done", func(h *harness, key string) error {
			return first(claimed(h, key), h.complete(key, own, long, idempotency.InTime, nil))
		}},
	}
}

// cell says what a step does in a state.
type cell struct {
	state string
	step  string
	token string
	do    func(h *harness, key, token string) error
	// then is the state after it, and holder the token that this state remembers.
	then   string
	holder string
}

func cells() []cell {
	lost := idempotency.ErrLost
	claim := func(attempt int, want idempotency.State) func(*harness, string, string) error {
		return func(h *harness, key, token string) error {
			holder := own
			if want == idempotency.Claimed {
				holder = token
			}
			return h.claim(key, token, attempt, long, want, holder)
		}
	}
	renew := func(want error) func(*harness, string, string) error {
		return func(h *harness, key, token string) error { return h.renew(key, token, long, want) }
	}
	complete := func(completion idempotency.Completion, want error) func(*harness, string, string) error {
		return func(h *harness, key, token string) error { return h.complete(key, token, long, completion, want) }
	}
	schedule := func(want error) func(*harness, string, string) error {
		return func(h *harness, key, token string) error { return h.schedule(key, token, fence, long, want) }
	}
	release := func(want error) func(*harness, string, string) error {
		return func(h *harness, key, token string) error { return h.release(key, token, want) }
	}
	return []cell{
		{"absent", "claim", own, claim(0, idempotency.Claimed), "leased", own},
		{"absent", "claim of a later attempt", own, claim(7, idempotency.Claimed), "leased", own},
		{"absent", "renew", own, renew(lost), "absent", ""},
		{"absent", "complete", own, complete(idempotency.Late, nil), "done", own},
		{"absent", "schedule", own, schedule(lost), "absent", ""},
		{"absent", "release", own, release(nil), "absent", ""},

		{"leased", "claim", own, claim(0, idempotency.Claimed), "leased", own},
		{"leased", "claim", another, claim(0, idempotency.Busy), "leased", own},
		{"leased", "claim of a later attempt", another, claim(7, idempotency.Busy), "leased", own},
		{"leased", "renew", own, renew(nil), "leased", own},
		{"leased", "renew", another, renew(lost), "leased", own},
		{"leased", "complete", own, complete(idempotency.InTime, nil), "done", own},
		{"leased", "complete", another, complete(0, lost), "leased", own},
		{"leased", "schedule", own, schedule(nil), "retry", own},
		{"leased", "schedule", another, schedule(lost), "leased", own},
		{"leased", "release", own, release(nil), "absent", ""},
		{"leased", "release", another, release(lost), "leased", own},

		{"retry", "claim of an earlier attempt", own, claim(fence-1, idempotency.Stale), "retry", own},
		{"retry", "claim of an earlier attempt", another, claim(fence-1, idempotency.Stale), "retry", own},
		{"retry", "claim of the attempt", own, claim(fence, idempotency.Claimed), "leased", own},
		{"retry", "claim of the attempt", another, claim(fence, idempotency.Claimed), "leased", another},
		{"retry", "claim of a later attempt", another, claim(fence+1, idempotency.Claimed), "leased", another},
		{"retry", "renew", own, renew(lost), "retry", own},
		{"retry", "renew", another, renew(lost), "retry", own},
		{"retry", "complete", own, complete(idempotency.InTime, nil), "done", own},
		{"retry", "complete", another, complete(0, lost), "retry", own},
		{"retry", "schedule", own, schedule(nil), "retry", own},
		{"retry", "schedule", another, schedule(lost), "retry", own},
		{"retry", "release", own, release(lost), "retry", own},
		{"retry", "release", another, release(lost), "retry", own},

		{"done", "claim", own, claim(0, idempotency.Done), "done", own},
		{"done", "claim", another, claim(0, idempotency.Done), "done", own},
		{"done", "claim of a later attempt", another, claim(7, idempotency.Done), "done", own},
		{"done", "renew", own, renew(lost), "done", own},
		{"done", "renew", another, renew(lost), "done", own},
		{"done", "complete", own, complete(idempotency.InTime, nil), "done", own},
		{"done", "complete", another, complete(idempotency.InTime, nil), "done", own},
		{"done", "schedule", own, schedule(lost), "done", own},
		{"done", "schedule", another, schedule(lost), "done", own},
		{"done", "release", own, release(lost), "done", own},
		{"done", "release", another, release(lost), "done", own},
	}
}

func tableTests() []storeTest {
	reach := make(map[string]func(h *harness, key string) error)
	for _, state := range states() {
		reach[state.name] = state.reach
	}
	table := cells()
	all := make([]storeTest, len(table))
	for i, cell := range table {
		all[i].name = fmt.Sprintf("table: %s, %s by %s", cell.state, cell.step, cell.token)
		all[i].run = func(h *harness) {
			key := h.newKey()
			h.must(reach[cell.state](h, key), cell.do(h, key, cell.token), h.isIn(key, cell.then, cell.holder))
		}
	}
	return all
}

// isIn checks which state key is in. It looks by claiming, so it comes last.
func (h *harness) isIn(key, name, holder string) error {
	var err error
	switch name {
	case "absent":
		err = h.claim(key, looker, 0, long, idempotency.Claimed, looker)
	case "leased":
		err = h.claim(key, looker, 0, long, idempotency.Busy, holder)
	case "retry":
		err = first(
			h.claim(key, looker, fence-1, long, idempotency.Stale, holder),
			h.claim(key, looker, fence, long, idempotency.Claimed, looker),
		)
	case "done":
		err = h.claim(key, looker, 0, long, idempotency.Done, holder)
	default:
		err = fmt.Errorf("the suite knows no state %q", name)
	}
	if err != nil {
		return fmt.Errorf("afterwards the key should be %s: %w", name, err)
	}
	return nil
}

// matches checks an error that a step returned.
func matches(step string, got, want error) error {
	switch {
	case want == nil && got != nil:
		return fmt.Errorf("%s: %w", step, got)
	case want != nil && !errors.Is(got, want):
		return fmt.Errorf("%s: error is %w, want one that matches: %s", step, got, want.Error())
	}
	return nil
}
