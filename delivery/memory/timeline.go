package memory

import (
	"slices"
	"sort"

	"github.com/esh3artech/barid/delivery"
)

// timeline is rows by position, oldest first. It is cut into pieces, so that a
// row comes and goes without the others being moved.
type timeline struct {
	pieces [][]*row // none is empty
}

// pieceRows is how many rows a piece has at most.
const pieceRows = 512

func comparePosition(r *row, position delivery.Position) int {
	return delivery.PositionOf(&r.record).Compare(position)
}

// spot is a place in a timeline: before the row of that index in the piece.
type spot struct{ piece, at int }

// find returns where the first row at or after position is, or would be.
func (t *timeline) find(position delivery.Position) (at spot, found bool) {
	piece := sort.Search(len(t.pieces), func(i int) bool {
		return comparePosition(t.pieces[i][len(t.pieces[i])-1], position) >= 0
	})
	if piece == len(t.pieces) {
		return spot{piece, 0}, false
	}
	in, found := slices.BinarySearchFunc(t.pieces[piece], position, comparePosition)
	return spot{piece, in}, found
}

func (t *timeline) add(r *row) {
	to, _ := t.find(delivery.PositionOf(&r.record))
	if to.piece == len(t.pieces) {
		if to.piece == 0 || len(t.pieces[to.piece-1]) == pieceRows {
			t.pieces = append(t.pieces, append(make([]*row, 0, pieceRows), r))
			return
		}
		to.piece--
		to.at = len(t.pieces[to.piece])
	}
	if piece := t.pieces[to.piece]; len(piece) == pieceRows {
		half := pieceRows / 2
		t.pieces = slices.Insert(t.pieces, to.piece+1, append(make([]*row, 0, pieceRows), piece[half:]...))
		clear(piece[half:])
		t.pieces[to.piece] = piece[:half]
		if to.at > half {
			to = spot{to.piece + 1, to.at - half}
		}
	}
	t.pieces[to.piece] = slices.Insert(t.pieces[to.piece], to.at, r)
}

func (t *timeline) remove(r *row) {
	from, found := t.find(delivery.PositionOf(&r.record))
	if !found {
		return
	}
	piece := slices.Delete(t.pieces[from.piece], from.at, from.at+1)
	t.pieces[from.piece] = piece
	if len(piece) == 0 {
		t.pieces = slices.Delete(t.pieces, from.piece, from.piece+1)
	}
}

// walk visits rows until visit returns false. Oldest first, it begins with the
// first row after the position; newest first, with the last one before it.
// Without a position it begins with the very first, or last.
func (t *timeline) walk(order delivery.RecordOrder, after *delivery.Position, visit func(*row) bool) {
	at := spot{0, 0}
	if order == delivery.NewestFirst {
		at = spot{len(t.pieces), 0}
	}
	if after != nil {
		var found bool
		if at, found = t.find(*after); found && order == delivery.OldestFirst {
			at.at++
		}
	}
	if order == delivery.OldestFirst {
		for ; at.piece < len(t.pieces); at = (spot{at.piece + 1, 0}) {
			for _, r := range t.pieces[at.piece][at.at:] {
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
			if !visit(t.pieces[at.piece][at.at]) {
				return
			}
		}
		if at.piece == 0 {
			return
		}
		at.piece--
		at.at = len(t.pieces[at.piece])
	}
}
