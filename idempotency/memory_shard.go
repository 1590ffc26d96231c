package idempotency

import "sync"

// shard is a part of a Memory's keys. Its lock guards everything in it.
type shard struct {
	mu      sync.Mutex
	entries map[string]*entry
	// soonest is a heap: the entry that is due first is the first.
	soonest []turn
	// unused has entries of keys that are gone, for those that come.
	unused []*entry
	_      [64]byte // keeps the locks of two shards out of one cache line
}

// entry is the state of one key.
type entry struct {
	key     string
	token   string
	attempt int   // that comes next, when fenced
	expires int64 // in nanoseconds since the Memory's base
	index   int   // in the heap
	status  status
}

// turn is when the heap looks at an entry: not after it expires. Most entries
// get a later expiry soon after they are made, when their work is done. They
// move within the heap only when it is their turn, which most have only twice.
// It stands beside the pointer to save the heap from following all of them.
type turn struct {
	due   int64
	entry *entry
}

type status uint8

const (
	leased status = iota
	fenced
	done
)

// maxUnused bounds unused. The sweep takes out little more than comes in.
const maxUnused = 64

func (s *shard) insert(key string, status status, token string, expires int64) {
	var e *entry
	if last := len(s.unused) - 1; last >= 0 {
		e = s.unused[last]
		s.unused = s.unused[:last]
	} else {
		e = new(entry)
	}
	e.key, e.status, e.token, e.expires = key, status, token, expires
	s.entries[key] = e
	s.soonest = append(s.soonest, turn{})
	s.up(len(s.soonest)-1, turn{due: expires, entry: e})
}

func (s *shard) set(e *entry, status status, token string, expires int64) {
	e.status, e.token, e.expires = status, token, expires
	if expires < s.soonest[e.index].due {
		s.up(e.index, turn{due: expires, entry: e})
	}
}

func (s *shard) remove(e *entry) {
	delete(s.entries, e.key)
	last := len(s.soonest) - 1
	moved := s.soonest[last]
	s.soonest[last] = turn{}
	s.soonest = s.soonest[:last]
	if moved.entry != e {
		s.up(e.index, moved)
		s.down(moved.entry.index, moved)
	}
	*e = entry{}
	if len(s.unused) < maxUnused {
		s.unused = append(s.unused, e)
	}
}

// sweep removes entries that have expired by now, as many as removals, and says
// how many. Entries that are due but got a later expiry cost a move each.
func (s *shard) sweep(now int64, removals, moves int) (removed int) {
	for removed < removals && len(s.soonest) > 0 {
		first := s.soonest[0]
		switch {
		case first.due > now:
			return removed
		case first.entry.expires <= now:
			s.remove(first.entry)
			removed++
		case moves == 0:
			return removed
		default:
			s.down(0, turn{due: first.entry.expires, entry: first.entry})
			moves--
		}
	}
	return removed
}

func (s *shard) place(index int, t turn) {
	s.soonest[index] = t
	t.entry.index = index
}

// up places t at index or, where it is due before others, above that.
func (s *shard) up(index int, t turn) {
	for index > 0 {
		parent := (index - 1) / 2
		if s.soonest[parent].due <= t.due {
			break
		}
		s.place(index, s.soonest[parent])
		index = parent
	}
	s.place(index, t)
}

// down places t at index or, where others are due before it, below that.
func (s *shard) down(index int, t turn) {
	for {
		child := 2*index + 1
		if child >= len(s.soonest) {
			break
		}
		if right := child + 1; right < len(s.soonest) && s.soonest[right].due < s.soonest[child].due {
			child = right
		}
		if t.due <= s.soonest[child].due {
			break
		}
		s.place(index, s.soonest[child])
		index = child
	}
	s.place(index, t)
}
