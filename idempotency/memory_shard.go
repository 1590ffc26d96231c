package idempotency

import "sync"

// shard is a part of a Memory's keys. Its lock guards everything in it.
//
// Records are kept by number, without a gap: when one is removed, the last takes its
// number. Neither records nor what refers to them has pointers. A window of a day
// keeps millions of keys, and the garbage collector would follow each pointer.
type shard struct {
	mu    sync.Mutex
	index index
	pages []*[pageRecords]record
	count uint32
	// soonest is a heap: the record that is due first is the first.
	soonest []turn
	// oldest and newest are the ends of the list of done records, in the order in
	// which they became done: a number plus 1, or 0 when there is none.
	oldest, newest uint32
	// long has the tokens that do not fit into their records.
	long map[digest]string
	_    [64]byte // keeps the locks of two shards out of one cache line
}

// pageRecords is how many records share one allocation, of 6 KiB.
const pageRecords = 64

// digest stands for a key. See Memory.
type digest struct{ high, low uint64 }

// tag is the part of a digest that the index has. The other half tells the shard.
func (d digest) tag() uint32 { return uint32(d.high) }

// record is the state of one key.
type record struct {
	digest  digest
	expires int64 // in nanoseconds since the Memory's base
	attempt int   // that comes next, when fenced
	turn    uint32
	status  status
	length  uint8 // of the token, or longToken
	// Of a done record: its place among all of the Memory's, and its neighbours in
	// the shard's list, as in shard.oldest.
	order        int64
	older, newer uint32
	token        [inlineToken]byte
}

const (
	// inlineToken is the longest token that a record holds itself: the guard's
	// have 22 bytes, UUIDs 36. It makes a record of 96 bytes.
	inlineToken = 42
	longToken   = inlineToken + 1
)

// turn is when the heap looks at a record, which is no later than it expires. Most
// records get a later expiry soon after they are made, when their work is done. They
// move within the heap only when it is their turn, which most have only twice.
type turn struct {
	due    int64
	number uint32
}

type status uint8

const (
	leased status = iota
	fenced
	done
)

func (s *shard) record(number uint32) *record {
	return &s.pages[number/pageRecords][number%pageRecords]
}

// find returns what is known of a key, nil when nothing is.
func (s *shard) find(d digest) *record {
	number, ok := s.index.find(d.tag(), func(number uint32) bool { return s.record(number).digest == d })
	if !ok {
		return nil
	}
	return s.record(number)
}

func (s *shard) insert(d digest, status status, token string, expires int64) *record {
	number := s.count
	s.count++
	if int(number) == len(s.pages)*pageRecords {
		s.pages = append(s.pages, new([pageRecords]record))
	}
	*s.record(number) = record{digest: d, status: status, expires: expires}
	s.setToken(s.record(number), token)
	s.index.insert(d.tag(), number)
	s.soonest = append(s.soonest, turn{})
	s.up(len(s.soonest)-1, turn{due: expires, number: number})
	return s.record(number)
}

func (s *shard) set(r *record, status status, token string, expires int64) {
	if !s.hasToken(r, token) {
		s.setToken(r, token)
	}
	r.status, r.expires = status, expires
	if at := int(r.turn); expires < s.soonest[at].due {
		s.up(at, turn{due: expires, number: s.soonest[at].number})
	}
}

func (s *shard) hasToken(r *record, token string) bool {
	if r.length == longToken {
		return s.long[r.digest] == token
	}
	return string(r.token[:r.length]) == token
}

func (s *shard) token(r *record) string {
	if r.length == longToken {
		return s.long[r.digest]
	}
	return string(r.token[:r.length])
}

func (s *shard) setToken(r *record, token string) {
	if r.length == longToken {
		delete(s.long, r.digest)
	}
	if len(token) <= inlineToken {
		r.length = uint8(copy(r.token[:], token))
		return
	}
	r.length = longToken
	if s.long == nil {
		s.long = make(map[digest]string)
	}
	s.long[r.digest] = token
}

func (s *shard) remove(r *record) {
	at := int(r.turn)
	number := s.soonest[at].number
	s.setToken(r, "")
	if r.status == done {
		s.unlink(r)
	}
	s.index.remove(r.digest.tag(), number)

	end := len(s.soonest) - 1
	moved := s.soonest[end]
	s.soonest = s.soonest[:end]
	if at < end {
		s.up(at, moved)
		s.down(int(s.record(moved.number).turn), moved)
	}

	s.count--
	if last := s.count; number != last {
		*r = *s.record(last)
		s.index.renumber(r.digest.tag(), last, number)
		s.soonest[r.turn].number = number
		if r.status == done {
			*s.olderLink(r), *s.newerLink(r) = number+1, number+1
		}
	}
	s.shrink()
}

// link makes a record that has become done the newest of the list.
func (s *shard) link(r *record, order int64) {
	r.order, r.older, r.newer = order, s.newest, 0
	number := s.soonest[r.turn].number
	*s.olderLink(r), *s.newerLink(r) = number+1, number+1
}

func (s *shard) unlink(r *record) {
	*s.olderLink(r), *s.newerLink(r) = r.newer, r.older
}

// olderLink is what refers to a done record from the side of the older ones.
func (s *shard) olderLink(r *record) *uint32 {
	if r.older == 0 {
		return &s.oldest
	}
	return &s.record(r.older - 1).newer
}

// newerLink is what refers to it from the side of the newer ones.
func (s *shard) newerLink(r *record) *uint32 {
	if r.newer == 0 {
		return &s.newest
	}
	return &s.record(r.newer - 1).older
}

// oldestDone is nil when no record is done.
func (s *shard) oldestDone() *record {
	if s.oldest == 0 {
		return nil
	}
	return s.record(s.oldest - 1)
}

// shrink frees memory. One page more than needed is kept, so that a record that
// comes and goes does not allocate one each time.
func (s *shard) shrink() {
	if spare := len(s.pages)*pageRecords - int(s.count); spare >= 2*pageRecords {
		s.pages[len(s.pages)-1] = nil
		s.pages = s.pages[:len(s.pages)-1]
	}
	if cap(s.soonest) > minSlots && len(s.soonest) < cap(s.soonest)/4 {
		s.soonest = append(make([]turn, 0, cap(s.soonest)/2), s.soonest...)
	}
}

// sweep removes records that have expired by now, at most as many as removals, and
// returns how many. It moves records that are due but have a later expiry, at most as
// many as moves.
func (s *shard) sweep(now int64, removals, moves int) (removed int) {
	for removed < removals && len(s.soonest) > 0 {
		first := s.soonest[0]
		if first.due > now {
			return removed
		}
		switch r := s.record(first.number); {
		case r.expires <= now:
			s.remove(r)
			removed++
		case moves == 0:
			return removed
		default:
			s.down(0, turn{due: r.expires, number: first.number})
			moves--
		}
	}
	return removed
}

func (s *shard) place(at int, t turn) {
	s.soonest[at] = t
	s.record(t.number).turn = uint32(at)
}

// up places t at a place of the heap or, where it is due before others, above
// that.
func (s *shard) up(at int, t turn) {
	for at > 0 {
		parent := (at - 1) / 2
		if s.soonest[parent].due <= t.due {
			break
		}
		s.place(at, s.soonest[parent])
		at = parent
	}
	s.place(at, t)
}

// down places t at a place of the heap or, where others are due before it, below
// that.
func (s *shard) down(at int, t turn) {
	for {
		child := 2*at + 1
		if child >= len(s.soonest) {
			break
		}
		if right := child + 1; right < len(s.soonest) && s.soonest[right].due < s.soonest[child].due {
			child = right
		}
		if t.due <= s.soonest[child].due {
			break
		}
		s.place(at, s.soonest[child])
		at = child
	}
	s.place(at, t)
}
