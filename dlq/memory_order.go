package dlq

import (
	"slices"

	"github.com/esh3artech/barid/delivery"
)

// maxChunk bounds how many items are moved when one is put in or taken out.
const maxChunk = 512

// itemOrder has the items of a Memory by position, oldest first. It is a list of
// chunks, none of which is empty, so that to put one in or to take one out moves
// few of the others, wherever that is.
type itemOrder struct{ chunks [][]*item }

// place is where an item is, or would be.
type place struct{ chunk, at int }

// find returns the place of the first item that is not before position.
func (o *itemOrder) find(position delivery.Position) (p place, found bool) {
	p.chunk, _ = slices.BinarySearchFunc(o.chunks, position, func(chunk []*item, position delivery.Position) int {
		return compareItem(chunk[len(chunk)-1], position)
	})
	if p.chunk < len(o.chunks) {
		p.at, found = slices.BinarySearchFunc(o.chunks[p.chunk], position, compareItem)
	}
	return p, found
}

// item returns nil where there is none.
func (o *itemOrder) item(p place) *item {
	if p.chunk < 0 || p.chunk >= len(o.chunks) {
		return nil
	}
	return o.chunks[p.chunk][p.at]
}

func (o *itemOrder) next(p place) place {
	if p.at++; p.at == len(o.chunks[p.chunk]) {
		p = place{chunk: p.chunk + 1}
	}
	return p
}

func (o *itemOrder) previous(p place) place {
	if p.at--; p.at < 0 {
		if p.chunk--; p.chunk >= 0 {
			p.at = len(o.chunks[p.chunk]) - 1
		}
	}
	return p
}

// end is the place behind the last item.
func (o *itemOrder) end() place { return place{chunk: len(o.chunks)} }

func (o *itemOrder) insert(it *item) {
	p, _ := o.find(positionOf(&it.entry))
	if last := len(o.chunks) - 1; p.chunk > last {
		if last < 0 {
			o.chunks = append(o.chunks, []*item{it})
			return
		}
		p = place{chunk: last, at: len(o.chunks[last])}
	}
	chunk := slices.Insert(o.chunks[p.chunk], p.at, it)
	o.chunks[p.chunk] = chunk
	if len(chunk) > maxChunk {
		half := len(chunk) / 2
		if p.at == maxChunk && p.chunk == len(o.chunks)-1 {
			half = maxChunk // what comes in order fills its chunks
		}
		o.chunks[p.chunk] = slices.Clone(chunk[:half])
		o.chunks = slices.Insert(o.chunks, p.chunk+1, slices.Clone(chunk[half:]))
	}
}

func (o *itemOrder) remove(it *item) {
	p, found := o.find(positionOf(&it.entry))
	if !found {
		return
	}
	o.chunks[p.chunk] = slices.Delete(o.chunks[p.chunk], p.at, p.at+1)
	// Small neighbours become one, so that there are not many small chunks.
	for first := max(0, p.chunk-1); first <= p.chunk && first+1 < len(o.chunks); first++ {
		if len(o.chunks[first])+len(o.chunks[first+1]) <= maxChunk/2 {
			o.chunks[first] = append(o.chunks[first], o.chunks[first+1]...)
			o.chunks = slices.Delete(o.chunks, first+1, first+2)
			return
		}
	}
	if len(o.chunks[p.chunk]) == 0 {
		o.chunks = slices.Delete(o.chunks, p.chunk, p.chunk+1)
	}
}

// all yields the items, oldest first.
func (o *itemOrder) all(yield func(*item) bool) {
	for _, chunk := range o.chunks {
		for _, it := range chunk {
			if !yield(it) {
				return
			}
		}
	}
}
