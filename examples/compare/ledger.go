package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// messageID is the n-th message's. It is as long as a UUID and holds the number,
// so that the ledger needs no map.
func messageID(n int) string {
	const digits = 1_000_000_000_000
	return idPrefix + strconv.Itoa(digits + n)[1:]
}

const idPrefix = "01940000-0000-7000-8000-"

func messageIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = messageID(i)
	}
	return ids
}

// ledger notes which of n messages were handled, how often, and when the first
// and the last were. Both sides pay for it alike.
type ledger struct {
	handled []atomic.Uint32 // by message
	count   atomic.Int64
	strays  atomic.Int64 // not one of ours
	first   time.Time    // written before the count is 1
	last    time.Time    // written before done
	done    chan struct{}
}

func newLedger(n int) *ledger {
	return &ledger{handled: make([]atomic.Uint32, n), done: make(chan struct{})}
}

// note counts one handling.
func (l *ledger) note(id string) {
	if len(id) != len(idPrefix)+12 {
		l.strays.Add(1)
		return
	}
	n, err := strconv.Atoi(id[len(idPrefix):])
	if err != nil || n < 0 || n >= len(l.handled) {
		l.strays.Add(1)
		return
	}
	if l.handled[n].Add(1) > 1 {
		return
	}
	switch l.count.Add(1) {
	case 1:
		l.first = time.Now()
	case int64(len(l.handled)):
		l.last = time.Now()
		close(l.done)
	}
}

// stall is after how long without a new message the rest is given up.
const stall = 20 * time.Second

// wait returns when all messages were handled, or with an error when no more
// come, or ended has something to say.
func (l *ledger) wait(ctx context.Context, ended <-chan error) error {
	ticker := time.NewTicker(stall)
	defer ticker.Stop()
	for before := int64(-1); ; {
		select {
		case <-l.done:
			return nil
		case err := <-ended:
			return fmt.Errorf("ended after %d of %d messages: %w", l.count.Load(), len(l.handled), err)
		case <-ticker.C:
			if now := l.count.Load(); now == before {
				return fmt.Errorf("%d of %d messages handled, and no more come", now, len(l.handled))
			} else {
				before = now
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// elapsed is the time from the first to the last message, to be asked after
// wait.
func (l *ledger) elapsed() time.Duration { return l.last.Sub(l.first) }

// check fails unless every message was handled exactly once.
func (l *ledger) check() error {
	lost, repeated := 0, 0
	for i := range l.handled {
		switch count := l.handled[i].Load(); {
		case count == 0:
			lost++
		case count > 1:
			repeated++
		}
	}
	if strays := l.strays.Load(); lost+repeated > 0 || strays > 0 {
		return fmt.Errorf("of %d messages %d were lost and %d came twice, and %d came that were never sent",
			len(l.handled), lost, repeated, strays)
	}
	return nil
}
