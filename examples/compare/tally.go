package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// tally counts to n and notes when it got there.
type tally struct {
	n     int64
	count atomic.Int64
	last  time.Time // written before done
	done  chan struct{}
}

func newTally(n int) *tally { return &tally{n: int64(n), done: make(chan struct{})} }

func (t *tally) add(k int) {
	if after := t.count.Add(int64(k)); after >= t.n && after-int64(k) < t.n {
		t.last = time.Now()
		close(t.done)
	}
}

// wait returns when the count is n, or with an error when it does not get there.
func (t *tally) wait(ctx context.Context) error {
	ticker := time.NewTicker(stall)
	defer ticker.Stop()
	for before := int64(-1); ; {
		select {
		case <-t.done:
			return nil
		case <-ticker.C:
			now := t.count.Load()
			if now == before {
				return fmt.Errorf("%d of %d done, and no more come", now, t.n)
			}
			before = now
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// since is the time from begin to the n-th, to be asked after wait.
func (t *tally) since(begin time.Time) time.Duration { return t.last.Sub(begin) }
