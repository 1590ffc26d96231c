package memory

import "time"

// The kinds of heaps. A record is in at most one heap of each kind.
const (
	dueHeap     = iota
	waitingHeap // the pending or the queued ones
	settledHeap
	heapKinds
)

// place is a record's position in a heap. Its heap is nil when the record is in
// none.
type place struct {
	heap *timeHeap
	at   int
}

// timeHeap is a binary heap of records by a time, and among equal times by
// their numbers. Any record can be removed from it. A record whose time has
// changed has to be removed and pushed again.
type timeHeap struct {
	kind  int
	key   func(*storedRecord) time.Time
	items []heapItem
}

// heapItem has the time beside the record: with a million records, each
// comparison would fetch the record from memory otherwise.
type heapItem struct {
	at     int64 // in microseconds
	stored *storedRecord
}

// first is the record with the earliest time, or nil when the heap is empty.
func (h *timeHeap) first() *storedRecord {
	if h == nil || len(h.items) == 0 {
		return nil
	}
	return h.items[0].stored
}

func (h *timeHeap) push(r *storedRecord) {
	h.items = append(h.items, heapItem{h.key(r).UnixMicro(), r})
	h.up(len(h.items) - 1)
}

// remove removes a record that is in the heap.
func (h *timeHeap) remove(r *storedRecord) {
	at, last := r.places[h.kind].at, len(h.items)-1
	moved := h.items[last]
	h.items[last] = heapItem{}
	h.items = h.items[:last]
	r.places[h.kind] = place{}
	if at == last {
		return
	}
	h.set(at, moved)
	if !h.down(at) {
		h.up(at)
	}
}

func (h *timeHeap) set(at int, e heapItem) {
	h.items[at] = e
	e.stored.places[h.kind] = place{h, at}
}

func (e heapItem) before(other heapItem) bool {
	if e.at != other.at {
		return e.at < other.at
	}
	return e.stored.number < other.stored.number
}

func (h *timeHeap) up(child int) {
	e := h.items[child]
	for child > 0 {
		parent := (child - 1) / 2
		if !e.before(h.items[parent]) {
			break
		}
		h.set(child, h.items[parent])
		child = parent
	}
	h.set(child, e)
}

// down returns whether the item has moved.
func (h *timeHeap) down(parent int) bool {
	e, start := h.items[parent], parent
	for {
		child := 2*parent + 1
		if child >= len(h.items) {
			break
		}
		if child+1 < len(h.items) && h.items[child+1].before(h.items[child]) {
			child++
		}
		if !h.items[child].before(e) {
			break
		}
		h.set(parent, h.items[child])
		parent = child
	}
	h.set(parent, e)
	return parent != start
}
