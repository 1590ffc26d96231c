package memory

import (
	"slices"
	"sort"

	"github.com/esh3artech/barid/delivery"
)

// sortedList is a list of records by position, oldest first. It is kept in
// chunks, so that inserting or removing a record moves only a few others.
type sortedList struct {
	chunks [][]*storedRecord // none is empty
}

// chunkRecords is how many records a chunk has at most.
const chunkRecords = 512

func comparePosition(r *storedRecord, position delivery.Position) int {
	return delivery.PositionOf(&r.record).Compare(position)
}

// listPosition is a place in a sortedList: before the record with that index in
// the chunk.
type listPosition struct{ chunk, at int }

// find returns where the first record at or after position is, or would be.
func (l *sortedList) find(position delivery.Position) (at listPosition, found bool) {
	chunk := sort.Search(len(l.chunks), func(i int) bool {
		return comparePosition(l.chunks[i][len(l.chunks[i])-1], position) >= 0
	})
	if chunk == len(l.chunks) {
		return listPosition{chunk, 0}, false
	}
	in, found := slices.BinarySearchFunc(l.chunks[chunk], position, comparePosition)
	return listPosition{chunk, in}, found
}

func (l *sortedList) add(r *storedRecord) {
	to, _ := l.find(delivery.PositionOf(&r.record))
	if to.chunk == len(l.chunks) {
		if to.chunk == 0 || len(l.chunks[to.chunk-1]) == chunkRecords {
			l.chunks = append(l.chunks, append(make([]*storedRecord, 0, chunkRecords), r))
			return
		}
		to.chunk--
		to.at = len(l.chunks[to.chunk])
	}
	if chunk := l.chunks[to.chunk]; len(chunk) == chunkRecords {
		half := chunkRecords / 2
		l.chunks = slices.Insert(l.chunks, to.chunk+1, append(make([]*storedRecord, 0, chunkRecords), chunk[half:]...))
		clear(chunk[half:])
		l.chunks[to.chunk] = chunk[:half]
		if to.at > half {
			to = listPosition{to.chunk + 1, to.at - half}
		}
	}
	l.chunks[to.chunk] = slices.Insert(l.chunks[to.chunk], to.at, r)
}

func (l *sortedList) remove(r *storedRecord) {
	from, found := l.find(delivery.PositionOf(&r.record))
	if !found {
		return
	}
	chunk := slices.Delete(l.chunks[from.chunk], from.at, from.at+1)
	l.chunks[from.chunk] = chunk
	if len(chunk) == 0 {
		l.chunks = slices.Delete(l.chunks, from.chunk, from.chunk+1)
	}
}

// walk visits records until visit returns false. Oldest first, it begins with
// the first record after the position; newest first, with the last one before
// it. Without a position it begins with the very first, or the very last.
func (l *sortedList) walk(order delivery.RecordOrder, after *delivery.Position, visit func(*storedRecord) bool) {
	at := listPosition{0, 0}
	if order == delivery.NewestFirst {
		at = listPosition{len(l.chunks), 0}
	}
	if after != nil {
		var found bool
		if at, found = l.find(*after); found && order == delivery.OldestFirst {
			at.at++
		}
	}
	if order == delivery.OldestFirst {
		for ; at.chunk < len(l.chunks); at = (listPosition{at.chunk + 1, 0}) {
			for _, r := range l.chunks[at.chunk][at.at:] {
				if !visit(r) {
					return
				}
			}
		}
		return
	}
	for {
		for at.at > 0 {
			at.at--
			if !visit(l.chunks[at.chunk][at.at]) {
				return
			}
		}
		if at.chunk == 0 {
			return
		}
		at.chunk--
		at.at = len(l.chunks[at.chunk])
	}
}
