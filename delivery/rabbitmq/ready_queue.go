package rabbitmq

import (
	"sync"

	"github.com/esh3artech/barid/delivery"
)

// readyQueue holds what a subscription has fetched and not yet handed out.
type readyQueue struct {
	arrived chan struct{} // capacity 1: the queue is no longer empty

	mu      sync.Mutex
	byLevel [4][]*incoming // by priority, the highest first
	count   int
	batch   []delivery.Incoming // of the last take, for reuse
}

func newReadyQueue() readyQueue { return readyQueue{arrived: make(chan struct{}, 1)} }

func (q *readyQueue) add(in *incoming) {
	q.mu.Lock()
	rank := int(delivery.Urgent - in.priority)
	q.byLevel[rank] = append(q.byLevel[rank], in)
	q.count++
	first := q.count == 1
	q.mu.Unlock()
	if first {
		select {
		case q.arrived <- struct{}{}:
		default:
		}
	}
}

// take empties the queue, the highest priority first. The result is valid until
// the next take.
func (q *readyQueue) take() []delivery.Incoming {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.batch)
	q.batch = q.batch[:0]
	if q.count == 0 {
		return nil
	}
	for rank, ready := range q.byLevel {
		for _, in := range ready {
			q.batch = append(q.batch, in)
		}
		clear(ready)
		q.byLevel[rank] = ready[:0]
	}
	q.count = 0
	return q.batch
}

// drop removes what came by a channel that is stale now.
func (q *readyQueue) drop(c *consumerChannel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for rank, ready := range q.byLevel {
		kept := ready[:0]
		for _, in := range ready {
			if in.channel != c {
				kept = append(kept, in)
			}
		}
		q.count -= len(ready) - len(kept)
		clear(ready[len(kept):])
		q.byLevel[rank] = kept
	}
}
