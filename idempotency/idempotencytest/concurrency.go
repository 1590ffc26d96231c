package idempotencytest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

func testConcurrentClaims(h *harness) {
	const claimers = 100
	for range 5 {
		key := h.newKey()
		answers := make([]idempotency.Answer, claimers)
		errs := make([]error, claimers)
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range claimers {
			all.Go(func() {
				<-start
				answers[i], errs[i] = h.Store.Claim(h.Context(), key, fmt.Sprint("claimer ", i), 0, long)
			})
		}
		close(start)
		all.Wait()
		h.must(errs...)
		winner := ""
		for i, answer := range answers {
			switch answer.State {
			case idempotency.Claimed:
				if winner != "" {
					h.Fatalf("both %q and %q claimed the key", winner, fmt.Sprint("claimer ", i))
				}
				winner = fmt.Sprint("claimer ", i)
			case idempotency.Busy:
			default:
				h.Fatalf("claimer %d: answer is %v, want claimed or busy", i, answer.State)
			}
		}
		if winner == "" {
			h.Fatal("nobody claimed the key")
		}
		h.must(h.isIn(key, "leased", winner))
	}
}

// Workers claim and release a few keys again and again. No key ever has more than one
// holder, and each is completed once.
func testContention(h *harness) {
	const workers, keys, rounds = 8, 4, 20
	names := make([]string, keys)
	for i := range names {
		names[i] = h.newKey()
	}
	var holders, completed [keys]atomic.Int32
	h.atOnce(workers, func(worker int) error {
		return h.contend(worker, rounds, names, holders[:], completed[:])
	})
	for i := range names {
		if n := completed[i].Load(); n != 1 {
			h.Errorf("key %d was completed %d times, want once", i, n)
		}
	}
}

func (h *harness) contend(worker, rounds int, names []string, holders, completed []atomic.Int32) error {
	finished := 0
	seen := make([]bool, len(names))
	claims := make([]int, len(names))
	for turn := 0; finished < len(names); turn++ {
		i := (worker + turn) % len(names)
		if seen[i] {
			continue
		}
		token := fmt.Sprintf("worker %d turn %d", worker, turn)
		answer, err := h.Store.Claim(h.Context(), names[i], token, 0, long)
		switch {
		case err != nil:
			return fmt.Errorf("%s: Claim: %w", token, err)
		case answer.State == idempotency.Done:
			seen[i] = true
			finished++
			continue
		case answer.State == idempotency.Busy:
			<-time.After(time.Millisecond)
			continue
		case answer.State != idempotency.Claimed:
			return fmt.Errorf("%s: answer is %v", token, answer.State)
		}
		if n := holders[i].Add(1); n != 1 {
			return fmt.Errorf("%s: %d holders of one key", token, n)
		}
		holders[i].Add(-1)
		claims[i]++
		if claims[i] < rounds {
			err = h.release(names[i], token, nil)
		} else {
			completed[i].Add(1)
			err = h.complete(names[i], token, long, idempotency.InTime, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
