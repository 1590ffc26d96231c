package memory

import "time"

// The kinds of heaps. A row is in one heap of a kind at most.
const (
	dueHeap = iota
	pendingHeap
	settledHeap
	heapKinds
)

// place is where a row is in a heap, nowhere when there is no heap.
type place struct {
	heap *rowHeap
	at   int
}

// rowHeap is a binary heap of rows by a time, and by their numbers among equals,
// that any row can be taken out of. A row whose time has changed has to be taken
// out and put in again before the heap is used for another.
type rowHeap struct {
	kind int
	key  func(*row) time.Time
	rows []*row
}

// first is the first, nil when the heap is empty.
func (h *rowHeap) first() *row {
	if h == nil || len(h.rows) == 0 {
		return nil
	}
	return h.rows[0]
}

func (h *rowHeap) push(r *row) {
	h.rows = append(h.rows, r)
	h.up(len(h.rows) - 1)
}

// remove takes out a row that is in the heap.
func (h *rowHeap) remove(r *row) {
	at, last := r.places[h.kind].at, len(h.rows)-1
	moved := h.rows[last]
	h.rows[last] = nil
	h.rows = h.rows[:last]
	r.places[h.kind] = place{}
	if at == last {
		return
	}
	h.set(at, moved)
	if !h.down(at) {
		h.up(at)
	}
}

func (h *rowHeap) set(at int, r *row) {
	h.rows[at] = r
	r.places[h.kind] = place{h, at}
}

func (h *rowHeap) before(a, b *row) bool {
	if byTime := h.key(a).Compare(h.key(b)); byTime != 0 {
		return byTime < 0
	}
	return a.number < b.number
}

func (h *rowHeap) up(child int) {
	r := h.rows[child]
	for child > 0 {
		parent := (child - 1) / 2
		if !h.before(r, h.rows[parent]) {
			break
		}
		h.set(child, h.rows[parent])
		child = parent
	}
	h.set(child, r)
}

// down says whether the row has moved.
func (h *rowHeap) down(parent int) bool {
	r, start := h.rows[parent], parent
	for {
		child := 2*parent + 1
		if child >= len(h.rows) {
			break
		}
		if child+1 < len(h.rows) && h.before(h.rows[child+1], h.rows[child]) {
			child++
		}
		if !h.before(h.rows[child], r) {
			break
		}
		h.set(parent, h.rows[child])
		parent = child
	}
	h.set(parent, r)
	return parent != start
}
