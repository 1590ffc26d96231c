package sqlstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

// The states of the table in idempotency.Store, by column.
const (
	columnAbsent = iota
	columnLeasedOwn
	columnLeasedAnothers
	columnRetryOwn
	columnRetryAnothers
	columnDone
)

// TestKeySteps is the table of idempotency.Store, for every state, its token,
// and times around its expiry.
func TestKeySteps(t *testing.T) {
	const (
		now      = int64(1_000_000)
		fence    = 3
		duration = 5 * time.Second
		later    = now + 5_000_000
	)
	table := map[keyAction][6]string{
		claimKey:    {"-> leased", "-> leased", "Busy", "Stale if attempt < n", "Stale if attempt < n", "Done"},
		renewKey:    {"ErrLost", "extended", "ErrLost", "ErrLost", "ErrLost", "ErrLost"},
		completeKey: {"-> done Late", "-> done", "ErrLost", "-> done", "ErrLost", "ok"},
		scheduleKey: {"ErrLost", "-> retry", "ErrLost", "-> retry", "ErrLost", "ErrLost"},
		releaseKey:  {"ok", "-> absent", "ErrLost", "ErrLost", "ErrLost", "ErrLost"},
	}
	type start struct {
		column int
		state  keyState
	}
	var starts []start
	for _, expires := range []int64{0, now - 1, now, now + 1, later * 2} {
		for _, token := range []string{"own", "another's"} {
			column := map[keyPhase]int{keyAbsent: columnAbsent, keyLeased: columnLeasedOwn, keyRetry: columnRetryOwn, keyDone: columnDone}
			if token != "own" {
				column[keyLeased], column[keyRetry] = columnLeasedAnothers, columnRetryAnothers
			}
			for phase := keyAbsent; phase <= keyDone; phase++ {
				state := keyState{phase: phase, token: token, expires: expires}
				switch phase {
				case keyAbsent:
					state = keyState{}
				case keyRetry:
					state.attempt = fence
				case keyLeased, keyDone:
				}
				if expires <= now {
					starts = append(starts, start{columnAbsent, state})
				} else {
					starts = append(starts, start{column[phase], state})
				}
			}
		}
	}
	for action, row := range table {
		for _, from := range starts {
			for attempt := fence - 1; attempt <= fence+1; attempt++ {
				cell := row[from.column]
				if cell == "Stale if attempt < n" {
					cell = map[bool]string{true: "Stale", false: "-> leased"}[attempt < fence]
				}
				name := fmt.Sprintf("%s at attempt %d of %+v: %s", action, attempt, from.state, cell)
				// The results of an earlier run must not stay.
				call := &keyCall{
					action: action, key: "key", token: "own", attempt: attempt, duration: duration,
					answer: idempotency.Answer{State: idempotency.Stale, Holder: "nobody"}, completion: idempotency.Late, refusal: idempotency.ErrLost,
				}
				got := from.state.apply(call, now)

				want := from.state.at(now)
				wanted := keyCall{}
				switch cell {
				case "-> leased":
					want = keyState{phase: keyLeased, token: "own", expires: later}
					wanted.answer = idempotency.Answer{State: idempotency.Claimed, Holder: "own"}
				case "Busy":
					wanted.answer = idempotency.Answer{State: idempotency.Busy, Holder: from.state.token}
				case "Stale":
					wanted.answer = idempotency.Answer{State: idempotency.Stale, Holder: from.state.token}
				case "Done":
					wanted.answer = idempotency.Answer{State: idempotency.Done, Holder: from.state.token}
				case "extended":
					want = keyState{phase: keyLeased, token: "own", expires: later}
				case "-> done", "-> done Late":
					want = keyState{phase: keyDone, token: "own", expires: later}
					if cell == "-> done Late" {
						wanted.completion = idempotency.Late
					}
				case "-> retry":
					want = keyState{phase: keyRetry, token: "own", attempt: attempt, expires: later}
				case "-> absent":
					want = keyState{}
				case "ErrLost":
					wanted.refusal = idempotency.ErrLost
				case "ok":
				default:
					t.Fatalf("%s is no cell", cell)
				}
				require.Equal(t, want, got, name)
				require.Equal(t, wanted.answer, call.answer, name)
				require.Equal(t, wanted.completion, call.completion, name)
				require.Equal(t, wanted.refusal, call.refusal, name)
			}
		}
	}
}

func TestKeysExpireInTime(t *testing.T) {
	for _, c := range []struct {
		now  int64
		d    time.Duration
		want int64
	}{
		{1000, time.Microsecond, 1001},
		{1000, time.Nanosecond, 1001}, // rounded up
		{1000, 1500 * time.Nanosecond, 1002},
		{1 << 62, 1<<63 - 1, 1<<62 + (1<<63-1)/1000 + 1},
		{1<<63 - 2, time.Hour, 1<<63 - 1}, // never
	} {
		require.Equal(t, c.want, after(c.now, c.d), "%d and %s", c.now, c.d)
	}
}
