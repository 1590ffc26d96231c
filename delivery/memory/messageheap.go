package memory

// messageHeap is a binary heap of messages. before is its order.
type messageHeap struct {
	before func(a, b *message) bool
	items  []*message
}

func (h *messageHeap) push(m *message) {
	h.items = append(h.items, m)
	child := len(h.items) - 1
	for child > 0 {
		parent := (child - 1) / 2
		if !h.before(h.items[child], h.items[parent]) {
			return
		}
		h.items[child], h.items[parent] = h.items[parent], h.items[child]
		child = parent
	}
}

// pop removes the first message of a heap that is not empty.
func (h *messageHeap) pop() *message {
	first := h.items[0]
	last := len(h.items) - 1
	h.items[0] = h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	if last == 0 && cap(h.items) > keptSlots {
		h.items = nil
	}
	parent := 0
	for {
		child := 2*parent + 1
		if child >= last {
			return first
		}
		if child+1 < last && h.before(h.items[child+1], h.items[child]) {
			child++
		}
		if !h.before(h.items[child], h.items[parent]) {
			return first
		}
		h.items[child], h.items[parent] = h.items[parent], h.items[child]
		parent = child
	}
}

// first is the first message, or nil when the heap is empty.
func (h *messageHeap) first() *message {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}
