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
// out and put in again.
type rowHeap struct {
	kind    int
	key     func(*row) time.Time
	entries []entry
}

// entry has the time beside the row: with a million rows, comparing would fetch
// each from memory.
type entry struct {
	at  int64 // in microseconds
	row *row
}

// first is the first, nil when the heap is empty.
func (h *rowHeap) first() *row {
	if h == nil || len(h.entries) == 0 {
		return nil
	}
	return h.entries[0].row
}

func (h *rowHeap) push(r *row) {
	h.entries = append(h.entries, entry{h.key(r).UnixMicro(), r})
	h.up(len(h.entries) - 1)
}

// remove takes out a row that is in the heap.
func (h *rowHeap) remove(r *row) {
	at, last := r.places[h.kind].at, len(h.entries)-1
	moved := h.entries[last]
	h.entries[last] = entry{}
	h.entries = h.entries[:last]
	r.places[h.kind] = place{}
	if at == last {
		return
	}
	h.set(at, moved)
	if !h.down(at) {
		h.up(at)
	}
}

func (h *rowHeap) set(at int, e entry) {
	h.entries[at] = e
	e.row.places[h.kind] = place{h, at}
}

func (e entry) before(other entry) bool {
	if e.at != other.at {
		return e.at < other.at
	}
	return e.row.number < other.row.number
}

func (h *rowHeap) up(child int) {
	e := h.entries[child]
	for child > 0 {
		parent := (child - 1) / 2
		if !e.before(h.entries[parent]) {
			break
		}
		h.set(child, h.entries[parent])
		child = parent
	}
	h.set(child, e)
}

// down says whether the row has moved.
func (h *rowHeap) down(parent int) bool {
	e, start := h.entries[parent], parent
	for {
		child := 2*parent + 1
		if child >= len(h.entries) {
			break
		}
		if child+1 < len(h.entries) && h.entries[child+1].before(h.entries[child]) {
			child++
		}
		if !h.entries[child].before(e) {
			break
		}
		h.set(parent, h.entries[child])
		parent = child
	}
	h.set(parent, e)
	return parent != start
}
