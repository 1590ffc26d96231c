package breaker

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// defaultMaxKeys is the default of SetConfig.MaxKeys.
const defaultMaxKeys = 10_000

// evictionScan is how many of the least recently used breakers are looked at
// for one that can go, which bounds how long Get holds the lock.
const evictionScan = 64

// SetConfig says how the breakers of a Set are made and how many it keeps.
type SetConfig struct {
	// Breaker is the config of every breaker. All have its Name; their keys tell
	// them apart in Changes.
	Breaker Config
	// MaxKeys bounds how many breakers are kept. Default 10,000; at most
	// 1,000,000.
	MaxKeys int
}

// Set has a Breaker for each key. Make it with NewSet; the breakers of a nil or
// zero Set allow nothing.
//
// When a new key would exceed MaxKeys, another one is evicted. Among the 64 keys
// used longest ago, that is the first whose breaker is closed and has no permit out,
// or, if all of these are open or busy, the one used longest ago. The key's next use
// starts with a new, closed breaker. The evicted breaker still works, but the two
// know nothing of each other, so call Get for each call and keep no Breaker.
//
// Get takes one lock for a moment. A Set is safe for concurrent use.
type Set struct {
	config   SetConfig
	fault    error
	unclosed atomic.Int64 // of its breakers

	mu        sync.Mutex
	breakers  map[string]*list.Element
	recent    list.List // of *Breaker, the one used last in front
	observers observers
}

// NewSet makes an empty Set. It doesn't fail: a faulty config is returned by
// Err, and by every Allow of its breakers.
func NewSet(config SetConfig) *Set {
	config.Breaker = config.Breaker.withDefaults()
	if config.MaxKeys == 0 {
		config.MaxKeys = defaultMaxKeys
	}
	fault := config.Breaker.validate()
	if config.MaxKeys < 1 || config.MaxKeys > maxCount {
		fault = errors.Join(fault, fmt.Errorf("%w: MaxKeys is %d, want 1 to %d", ErrConfig, config.MaxKeys, maxCount))
	}
	s := &Set{config: config, fault: fault, breakers: make(map[string]*list.Element)}
	first := config.Breaker.OnChange
	s.config.Breaker.OnChange = func(change Change) {
		defer s.notify(change) // whatever the first one does
		if first != nil {
			first(change)
		}
	}
	return s
}

// Watch has observer called at each change of any of the Set's breakers from now
// on, until stop is called. Breaker.Watch says how. The changes of one breaker come
// in their order; those of different breakers may come at the same time.
func (s *Set) Watch(called func(Change)) (stop func()) {
	if called == nil || s.Err() != nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	added := s.observers.add(called)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.observers.remove(added)
	}
}

// notify calls the observers, of which each may panic, or stop another one.
func (s *Set) notify(change Change) {
	s.mu.Lock()
	all := slices.Clone(s.observers.all)
	s.mu.Unlock()
	for _, each := range all {
		s.mu.Lock()
		stopped := each.stopped
		s.mu.Unlock()
		if !stopped {
			s.config.Breaker.callGuarded(each, change)
		}
	}
}

// Err is nil, or says why the Set can't be used; it matches ErrConfig.
func (s *Set) Err() error {
	switch {
	case s == nil:
		return fmt.Errorf("%w: Set is nil, want one made by NewSet", ErrConfig)
	case s.fault != nil:
		return s.fault
	case s.breakers == nil:
		return fmt.Errorf("%w: Set is a zero value, want one made by NewSet", ErrConfig)
	}
	return nil
}

// Get returns the key's Breaker, and makes it if there is none. It is never
// nil. The empty key is a key like any other.
func (s *Set) Get(key string) *Breaker {
	if err := s.Err(); err != nil {
		return &Breaker{fault: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.breakers[key]; ok {
		s.recent.MoveToFront(found)
		return found.Value.(*Breaker)
	}
	if len(s.breakers) >= s.config.MaxKeys {
		s.evict()
	}
	made := newBreaker(s.config.Breaker, key)
	made.unclosed = &s.unclosed
	s.breakers[key] = s.recent.PushFront(made)
	return made
}

// Len is how many keys have a breaker.
func (s *Set) Len() int {
	if s.Err() != nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.breakers)
}

// Open is how many of the breakers are open or half-open.
func (s *Set) Open() int {
	if s.Err() != nil {
		return 0
	}
	return int(s.unclosed.Load())
}

// evict removes one breaker. mu is held.
func (s *Set) evict() {
	victim := s.recent.Back()
	for each, looked := victim, 0; each != nil && looked < evictionScan; each, looked = each.Prev(), looked+1 {
		if each.Value.(*Breaker).idle() {
			victim = each
			break
		}
	}
	evicted := s.recent.Remove(victim).(*Breaker)
	delete(s.breakers, evicted.key)
	evicted.evicted()
}
