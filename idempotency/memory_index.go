package idempotency

// index finds a record's number by its digest: a table with open addressing and
// linear probing. A slot holds half of the digest beside the number, so that neither
// a miss nor growing looks at records. Nothing in it is a pointer that the garbage
// collector would follow. The zero value is empty.
type index struct {
	slots []slot // its length is a power of two, at most three quarters in use
	used  int
}

// slot is empty when place is 0.
type slot struct {
	tag   uint32 // of the digest
	place uint32 // the record's number plus 1
}

// minSlots is the size of the smallest table.
const minSlots = 64

// find returns the first number under tag that match agrees to.
func (x *index) find(tag uint32, match func(number uint32) bool) (number uint32, ok bool) {
	if x.used == 0 {
		return 0, false
	}
	for at := x.home(tag); x.slots[at].place != 0; at = x.next(at) {
		if x.slots[at].tag == tag && match(x.slots[at].place-1) {
			return x.slots[at].place - 1, true
		}
	}
	return 0, false
}

// insert adds a number that is not there yet.
func (x *index) insert(tag, number uint32) {
	if 4*(x.used+1) > 3*len(x.slots) {
		x.resize(max(minSlots, 2*len(x.slots)))
	}
	x.used++
	x.put(slot{tag: tag, place: number + 1})
}

func (x *index) put(s slot) {
	at := x.home(s.tag)
	for x.slots[at].place != 0 {
		at = x.next(at)
	}
	x.slots[at] = s
}

// renumber is for a record that has moved.
func (x *index) renumber(tag, from, to uint32) {
	x.slots[x.at(tag, from)].place = to + 1
}

// remove takes a number out, closes the gap in its probe sequence, and frees memory
// when little is left.
func (x *index) remove(tag, number uint32) {
	gap := x.at(tag, number)
	for at := x.next(gap); x.slots[at].place != 0; at = x.next(at) {
		// What lies between its home and at may move back as far as its home.
		if home := x.home(x.slots[at].tag); x.distance(home, at) >= x.distance(gap, at) {
			x.slots[gap] = x.slots[at]
			gap = at
		}
	}
	x.slots[gap] = slot{}
	x.used--
	if len(x.slots) > minSlots && 8*x.used < len(x.slots) {
		x.resize(len(x.slots) / 4)
	}
}

// at is where a number that is there lies.
func (x *index) at(tag, number uint32) uint32 {
	at := x.home(tag)
	for x.slots[at].place != number+1 {
		at = x.next(at)
	}
	return at
}

func (x *index) resize(size int) {
	old := x.slots
	x.slots = make([]slot, max(minSlots, size))
	for _, s := range old {
		if s.place != 0 {
			x.put(s)
		}
	}
}

func (x *index) home(tag uint32) uint32          { return tag & uint32(len(x.slots)-1) }
func (x *index) next(at uint32) uint32           { return (at + 1) & uint32(len(x.slots)-1) }
func (x *index) distance(from, to uint32) uint32 { return (to - from) & uint32(len(x.slots)-1) }
