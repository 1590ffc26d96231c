package memory

// ringBuffer is a queue of messages that grows by doubling. The zero value is
// empty.
type ringBuffer struct {
	slots []*message // its length is a power of two
	head  int
	count int
}

// keptSlots is the largest empty buffer that is kept for later messages.
const keptSlots = 1024

func (r *ringBuffer) push(m *message) {
	if r.count == len(r.slots) {
		r.grow()
	}
	r.slots[(r.head+r.count)&(len(r.slots)-1)] = m
	r.count++
}

func (r *ringBuffer) grow() {
	slots := make([]*message, max(16, 2*len(r.slots)))
	n := copy(slots, r.slots[r.head:])
	copy(slots[n:], r.slots[:r.head])
	r.slots, r.head = slots, 0
}

// pop removes the first message of a buffer that is not empty.
func (r *ringBuffer) pop() *message {
	m := r.slots[r.head]
	r.slots[r.head] = nil
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.count--
	if r.count == 0 && len(r.slots) > keptSlots {
		*r = ringBuffer{}
	}
	return m
}

// first is the first message, or nil when the buffer is empty.
func (r *ringBuffer) first() *message {
	if r.count == 0 {
		return nil
	}
	return r.slots[r.head]
}
