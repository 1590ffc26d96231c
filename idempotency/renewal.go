package idempotency

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Parts of the lease: it is renewed after a third of it, one try takes a sixth at
// most, and a twelfth passes before the next. That makes several tries before the
// lease ends, even when each of them hangs.
const (
	renewAfter   = 3
	renewTimeout = 6
	renewPause   = 12
)

// renewals keeps the leases of a guard's claims alive. One timer, which runs only
// while there are claims, looks through all of them each twelfth of a lease. Most
// claims are settled long before their first renewal, and a timer for each would
// cost more than everything else that a claim does.
type renewals struct {
	lease time.Duration

	mu      sync.Mutex
	first   *Claim // of a doubly linked list
	timer   *time.Timer
	ticking bool
}

// renewal is a claim's part. The lock of renewals guards it.
type renewal struct {
	previous, next *Claim
	listed         bool
	// start is when the last command was sent that made the lease what it is.
	start time.Time
	// running is set while a goroutine renews the lease.
	running bool
}

func (r *renewals) add(c *Claim, start time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.renewal = renewal{next: r.first, listed: true, start: start}
	if r.first != nil {
		r.first.renewal.previous = c
	}
	r.first = c
	if r.ticking {
		return
	}
	r.ticking = true
	if r.timer == nil {
		r.timer = time.AfterFunc(r.lease/renewPause, r.tick)
	} else {
		r.timer.Reset(r.lease / renewPause)
	}
}

func (r *renewals) remove(c *Claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlink(c)
}

func (r *renewals) unlink(c *Claim) {
	at := &c.renewal
	if !at.listed {
		return
	}
	if at.previous != nil {
		at.previous.renewal.next = at.next
	} else {
		r.first = at.next
	}
	if at.next != nil {
		at.next.renewal.previous = at.previous
	}
	at.previous, at.next, at.listed = nil, nil, false
}

// tick starts the renewals that would be late at the next tick.
func (r *renewals) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	nextTick := time.Now().Add(r.lease / renewPause)
	for c := r.first; c != nil; {
		next := c.renewal.next
		switch due := c.renewal.start.Add(r.lease / renewAfter); {
		case c.over():
			r.unlink(c) // given up
		case !c.renewal.running && due.Before(nextTick):
			c.renewal.running = true
			go c.renew(c.renewal.start)
		}
		c = next
	}
	r.ticking = r.first != nil
	if r.ticking {
		r.timer.Reset(r.lease / renewPause)
	}
}

// renewed has the lease count from start.
func (r *renewals) renewed(c *Claim, start time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.renewal.start = start
	c.renewal.running = false
}

// renew tries until the lease is renewed or lost, or has ended by this process's
// clock, counted from start. It returns at once when the claim has been settled,
// lost or given up.
func (c *Claim) renew(start time.Time) {
	lease := c.guard.config.Lease
	over, cancel := context.WithDeadline(c.ctx, start.Add(lease))
	defer cancel()
	for over.Err() == nil && !c.over() {
		sent := time.Now()
		try, cancelTry := context.WithTimeout(over, lease/renewTimeout)
		err := c.guard.store.Renew(try, c.key, c.token, lease)
		cancelTry()
		switch {
		case c.over():
			// The store may have said lost because the claim was settled meanwhile.
			return
		case err == nil:
			c.guard.renewals.renewed(c, sent)
			return
		case errors.Is(err, ErrLost):
			c.lose(c.ctx)
			return
		}
		c.guard.config.Logger.WarnContext(c.ctx, "idempotency lease not renewed", "scope", c.scope, "error", err)
		pause := time.NewTimer(lease / renewPause)
		select {
		case <-pause.C:
		case <-over.Done():
			pause.Stop()
		}
	}
	if !c.over() {
		c.lose(c.ctx)
	}
}
