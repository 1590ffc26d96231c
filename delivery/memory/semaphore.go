package memory

// semaphore bounds how many messages are in a place. Senders that find no room
// wait in the order in which they came. It is used under the queues' lock.
type semaphore struct {
	limit   int
	held    int
	waiters []*waiter
}

// waiter is a sender that waits for room. A value in wake tells it to look again.
type waiter struct{ wake chan struct{} }

// free returns how many messages the sender may add now. A sender that does not
// wait yet, whose waiter is nil, comes after those that do.
func (s *semaphore) free(w *waiter) int {
	if len(s.waiters) > 0 && s.waiters[0] != w {
		return 0
	}
	return max(0, s.limit-s.held)
}

// wait makes the sender the last one that waits.
func (s *semaphore) wait() *waiter {
	w := &waiter{wake: make(chan struct{}, 1)}
	s.waiters = append(s.waiters, w)
	return w
}

// leave ends the waiting of a sender.
func (s *semaphore) leave(w *waiter) {
	for i, other := range s.waiters {
		if other == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			break
		}
	}
	s.wakeFirst()
}

// release makes room for n messages.
func (s *semaphore) release(n int) {
	s.held -= n
	s.wakeFirst()
}

// wakeFirst wakes the first sender that waits, if there is room.
func (s *semaphore) wakeFirst() {
	if len(s.waiters) > 0 && s.held < s.limit {
		select {
		case s.waiters[0].wake <- struct{}{}:
		default:
		}
	}
}
