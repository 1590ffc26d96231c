package delivery

import (
	"context"
	"log/slog"
	"time"
)

// leftBehind is what an outbox has saved and did not send: there was no room for it,
// or it had waited here for too long. RetryWorkers send it. Where none is faster, or
// none runs, the outbox takes it back: no more than it left, and by a claim, so that
// nobody else has it then. It is guarded by the outbox's lock.
type leftBehind struct {
	count     int
	largest   int       // body of those
	next      time.Time // when to look for them, zero: never
	last      time.Time // when the last of them is due
	notBefore time.Time // while store or transport fail
	failures  int
	timer     *time.Timer
}

func (l *leftBehind) add(count int, due time.Time, largest int) {
	l.count += count
	l.largest = max(l.largest, largest)
	if l.next.IsZero() || due.Before(l.next) {
		l.next = due
	}
	if due.After(l.last) {
		l.last = due
	}
}

// at is when to look, zero: never.
func (l *leftBehind) at() time.Time {
	if l.next.IsZero() || l.next.After(l.notBefore) {
		return l.next
	}
	return l.notBefore
}

func (l *leftBehind) due(now time.Time) bool { return !l.next.IsZero() && !l.at().After(now) }

// limit is how many to take at once, whose bodies are within the outbox's bound.
func (l *leftBehind) limit() int {
	return max(1, min(l.count, outboxBatch, outboxBytes/max(1, l.largest)))
}

// taken notes that so many were claimed, of limit, at the time given.
func (l *leftBehind) taken(count, limit int, now time.Time) {
	l.count -= count
	switch {
	case l.count > 0 && count == limit:
		l.next = now
	case l.count > 0 && l.last.After(now):
		l.next = l.last
	default: // others have the rest
		l.count, l.largest, l.next, l.last = 0, 0, time.Time{}, time.Time{}
	}
}

// tried notes how a try went: after a failure it takes a while to the next one.
func (l *leftBehind) tried(failed bool, now time.Time) {
	if !failed {
		l.failures, l.notBefore = 0, time.Time{}
		return
	}
	l.notBefore = now.Add(backoff(l.failures, outageMost))
	l.failures++
}

// leave notes that so many messages, whose largest body has so many bytes, are not
// here to be sent, and are due from a time on.
func (o *outbox) leave(count int, due time.Time, largest int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || count == 0 {
		return
	}
	o.left.add(count, due, largest)
	o.sendLater()
}

// sendLater has what was left taken back when it is time, unless the outbox is
// sending, and looks by itself. The caller has the lock.
func (o *outbox) sendLater() {
	switch {
	case o.ended || o.sending || o.left.next.IsZero():
		return
	case o.left.due(time.Now()):
		o.sending = true
		go o.sendWaiting()
		return
	}
	if o.left.timer != nil {
		o.left.timer.Stop()
	}
	o.left.timer = time.AfterFunc(time.Until(o.left.at()), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.ended && !o.sending {
			o.sending = true
			go o.sendWaiting()
		}
	})
}

// takeBack claims a batch of what was left, if it is time.
func (o *outbox) takeBack() []outgoing {
	now := time.Now()
	o.mu.Lock()
	due, limit := o.left.due(now) && !o.ended, o.left.limit()
	o.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.life, min(o.grace/4, settleTimeout))
	defer cancel()
	records, err := o.store.Claim(ctx, Claim{
		Queue: o.queue, Status: StatusPending, Token: o.token, Now: now, Lease: o.grace, Limit: limit, DueFirst: limit / dueFirstShare,
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		if o.left.failures == 0 {
			o.logger.LogAttrs(ctx, slog.LevelWarn, "saved messages not taken back to be sent, tried again", slog.Int("count", o.left.count), errorAttr(err))
		}
		o.left.tried(true, now)
		return nil
	}
	o.left.taken(len(records), limit, now)
	batch := make([]outgoing, len(records))
	for i := range records {
		batch[i] = outgoing{envelope: records[i].Envelope(), token: o.token, saved: now}
		o.bytes += len(records[i].Body)
	}
	o.messages += len(batch)
	return batch
}
