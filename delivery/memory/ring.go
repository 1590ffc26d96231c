package memory

// ring is a queue of messages in a circle that grows by doubling. The zero
// value is empty.
type ring struct {
	slots []*message // its length is a power of two
	head  int
	count int
}

// keptSlots is the largest empty circle that is kept for the next messages.
const keptSlots = 1024

func (r *ring) push(m *message) {
	if r.count == len(r.slots) {
		r.grow()
	}
	r.slots[(r.head+r.count)&(len(r.slots)-1)] = m
	r.count++
}

func (r *ring) grow() {
	slots := make([]*message, max(16, 2*len(r.slots)))
	n := copy(slots, r.slots[r.head:])
	copy(slots[n:], r.slots[:r.head])
	r.slots, r.head = slots, 0
}

// pop takes the first of a ring that is not empty.
func (r *ring) pop() *message {
	m := r.slots[r.head]
	r.slots[r.head] = nil
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.count--
	if r.count == 0 && len(r.slots) > keptSlots {
		*r = ring{}
	}
	return m
}

// first is the first, nil when the ring is empty.
func (r *ring) first() *message {
	if r.count == 0 {
		return nil
	}
	return r.slots[r.head]
}
