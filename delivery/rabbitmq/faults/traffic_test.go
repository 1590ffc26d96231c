package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
)

const (
	callers   = 8
	batchSize = 5
	// publishInterval bounds the traffic to some 1600 messages a second.
	publishInterval = 25 * time.Millisecond
)

// traffic publishes a row's messages, and counts which were accepted.
type traffic struct {
	*rowTest
	publisher atomic.Pointer[delivery.Publisher]
	timeout   time.Duration // of each Publish
	body      atomic.Int64  // bytes of each message
	accepted  atomic.Int64
	latest    atomic.Int64 // when the last Publish began that was accepted, in Unix nanoseconds

	stopping   chan struct{}
	publishing sync.WaitGroup
	round      int

	mu       sync.Mutex
	refusals map[string]int // by the name of the sentinel that Publish returned
}

// startTraffic publishes until stopTraffic.
func (t *traffic) startTraffic() {
	t.stopping = make(chan struct{})
	t.round++
	stopping, round := t.stopping, t.round
	for caller := range callers {
		t.publishing.Go(func() {
			tick := time.NewTicker(publishInterval)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stopping:
					return
				case <-t.ctx.Done():
					return
				case <-tick.C:
				}
				t.publish(t.messages(fmt.Sprintf("%d-%d-%d", round, caller, i), batchSize)...)
			}
		})
	}
	t.atEnd(t.stopTraffic)
}

// stopTraffic ends the traffic when what it had begun is published.
func (t *traffic) stopTraffic() {
	if t.stopping != nil {
		close(t.stopping)
		t.stopping = nil
	}
	t.publishing.Wait()
}

// messages makes n messages, of all priorities.
func (t *traffic) messages(name string, n int) []delivery.Message {
	made := make([]delivery.Message, n)
	for i := range made {
		made[i] = delivery.Message{
			ID:        fmt.Sprintf("%02d-%s-%d", t.row.number, name, i),
			Recipient: "you", Body: make([]byte, t.body.Load()),
			Priority: delivery.Priorities()[i%4],
		}
	}
	return made
}

// publish publishes until all messages are accepted, each time with the same IDs.
func (t *traffic) publish(batch ...delivery.Message) {
	for len(batch) > 0 && t.ctx.Err() == nil {
		batch = t.publishOnce(batch...)
		if len(batch) > 0 {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-t.ctx.Done():
			}
		}
	}
}

// publishOnce publishes once and returns the messages that were not accepted.
func (t *traffic) publishOnce(batch ...delivery.Message) (rest []delivery.Message) {
	results := t.tryPublish(t.timeout, batch...)
	for i := range batch {
		if results[i] != nil {
			rest = append(rest, batch[i])
		}
	}
	return rest
}

// tryPublish publishes once, writes the ledger, and returns each message's error.
func (t *traffic) tryPublish(timeout time.Duration, batch ...delivery.Message) []error {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	begin := time.Now()
	err := t.publisher.Load().Publish(ctx, batch...)
	if late := time.Since(begin) - timeout; late > grace {
		t.Errorf("Publish returned %s after its deadline", late)
	}
	results := make([]error, len(batch))
	var each *delivery.ResultsError
	switch {
	case errors.As(err, &each):
		for i, result := range each.Results {
			results[i] = result.Err
		}
	case err != nil:
		for i := range results {
			results[i] = err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, err := range results {
		if err == nil {
			t.target.Sent(batch[i].ID)
			t.latest.Store(max(t.latest.Load(), begin.UnixNano()))
			t.accepted.Add(1)
			continue
		}
		for _, kind := range sentinelsOf(err) {
			t.refusals[kind]++
		}
	}
	return results
}

// sentinelsOf names the sentinels that an error of Publish matches.
func sentinelsOf(err error) []string {
	var names []string
	for name, sentinel := range map[string]error{
		"unknown": delivery.ErrOutcomeUnknown, "blocked": delivery.ErrBlocked, "refused": delivery.ErrRefused,
		"unroutable": delivery.ErrUnroutable, "too large": delivery.ErrTooLarge, "closed": delivery.ErrClosed,
		"store down":       delivery.ErrStoreDown,
		"not sent in time": context.DeadlineExceeded,
	} {
		if errors.Is(err, sentinel) {
			names = append(names, name)
		}
	}
	if names == nil {
		return []string{"other: " + err.Error()}
	}
	return names
}

// acceptedSince says whether a Publish that began after that time was accepted. One
// that had begun before does not count: it may have been confirmed by then, and
// return later.
func (t *traffic) acceptedSince(begin time.Time) bool {
	return t.latest.Load() > begin.UnixNano()
}

// refusedAs is how many messages Publish did not accept, by the sentinel's name.
func (t *traffic) refusedAs(kind string) int { return t.refused()[kind] }

func (t *traffic) refused() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.refusals)
}

// publishMany publishes n messages.
func (t *traffic) publishMany(n int) {
	for n > 0 {
		t.round++
		batch := t.messages(fmt.Sprint("all-", t.round), min(n, 250))
		t.publish(batch...)
		n -= len(batch)
	}
}
