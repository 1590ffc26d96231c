package breaker

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSetHasABreakerForEachKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Change
		s := NewSet(SetConfig{Breaker: Config{Name: "hosts", SampleSize: 1, OnChange: func(c Change) { told = append(told, c) }}})
		require.NoError(t, s.Err())
		a, b := s.Get("a"), s.Get("b")
		require.NotSame(t, a, b)
		require.Same(t, a, s.Get("a"))
		assert.Equal(t, "hosts", a.Name())
		assert.Equal(t, "a", a.Key())
		a.call(t, Failure)
		assert.Equal(t, Open, s.Get("a").State())
		assert.Equal(t, Closed, s.Get("b").State())
		assert.Equal(t, Closed, s.Get("").State())
		assert.Equal(t, []Change{{Name: "hosts", Key: "a", From: Closed, To: Open, At: time.Now()}}, told)
		assert.Equal(t, 3, s.Len())
	})
}

func TestSetIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := func(keys ...string) *Set {
			s := NewSet(SetConfig{MaxKeys: len(keys), Breaker: Config{SampleSize: 1}})
			for _, key := range keys {
				s.Get(key)
			}
			return s
		}
		has := func(s *Set, keys ...string) {
			t.Helper()
			require.Len(t, s.breakers, len(keys))
			require.Equal(t, len(keys), s.recent.Len())
			for _, key := range keys {
				require.Contains(t, s.breakers, key)
			}
		}

		s := made("a", "b", "c")
		s.Get("d")
		has(s, "b", "c", "d")

		s = made("a", "b", "c")
		s.Get("a")
		s.Get("d")
		has(s, "a", "c", "d")

		s = made("a", "b", "c", "d")
		s.breakerOf("a").call(t, Failure)
		busy, err := s.breakerOf("b").Allow()
		require.NoError(t, err)
		s.Get("e")
		has(s, "a", "b", "d", "e") // a is open, b is busy
		busy.Done(Success)
		s.Get("f")
		has(s, "a", "d", "e", "f") // b is idle again

		s = made("a", "b")
		s.breakerOf("a").call(t, Failure)
		s.breakerOf("b").call(t, Failure)
		gone := s.breakerOf("a")
		s.Get("c")
		has(s, "b", "c") // none can go, so the oldest does
		assert.Equal(t, Open, gone.State(), "and works on")
		assert.Equal(t, Open, s.Get("b").State())
		assert.Equal(t, 1, s.Open())
		gone.Reset()
		assert.Equal(t, 1, s.Open(), "an evicted breaker does not count")
	})
}

// breakerOf is Get without the use.
func (s *Set) breakerOf(key string) *Breaker { return s.breakers[key].Value.(*Breaker) }

// However many breakers can't go, looking for one that can is short.
func TestEvictionLooksAtAFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(SetConfig{MaxKeys: 2 * evictionScan, Breaker: Config{SampleSize: 1, OpenFor: time.Hour}})
		for i := range 2 * evictionScan {
			b := s.Get(strconv.Itoa(i))
			if i < evictionScan {
				b.call(t, Failure)
			}
		}
		s.Get("new")
		assert.NotContains(t, s.breakers, "0")
		assert.Contains(t, s.breakers, strconv.Itoa(evictionScan))
		s.Get("newer")
		assert.NotContains(t, s.breakers, strconv.Itoa(evictionScan), "within the scan now")
	})
}

func TestUnusableSets(t *testing.T) {
	for name, test := range map[string]struct {
		set  *Set
		want string
	}{
		"nil":      {nil, "Set is nil"},
		"zero":     {&Set{}, "Set is a zero value"},
		"negative": {NewSet(SetConfig{MaxKeys: -1}), "MaxKeys is -1, want 1 to 1000000"},
		"too many": {NewSet(SetConfig{MaxKeys: 1_000_001}), "MaxKeys is 1000001, want 1 to 1000000"},
		"breaker":  {NewSet(SetConfig{Breaker: Config{Probes: -1}}), "Probes is -1"},
		"both":     {NewSet(SetConfig{MaxKeys: -1, Breaker: Config{Probes: -1}}), "MaxKeys is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, test.set.Err(), ErrConfig)
			require.ErrorContains(t, test.set.Err(), "breaker: invalid config: "+test.want)
			_, err := test.set.Get("a").Allow()
			require.Equal(t, test.set.Err(), err)
			assert.Zero(t, test.set.Len())
		})
	}
	assert.Equal(t, 10_000, NewSet(SetConfig{}).config.MaxKeys)
}

func TestSetContention(t *testing.T) {
	s := NewSet(SetConfig{MaxKeys: 8, Breaker: Config{SampleSize: 4, OpenFor: time.Microsecond}})
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			for n := range 100 {
				permit, err := s.Get(strconv.Itoa((i + n) % 16)).Allow()
				if err != nil && !errors.Is(err, ErrOpen) {
					t.Errorf("refused with %v", err)
				}
				permit.Done(Outcome((i * n) % 4))
			}
		})
	}
	group.Wait()
	assert.Equal(t, 8, s.Len())
	assert.Equal(t, 8, s.recent.Len())
	open := 0
	for each := s.recent.Front(); each != nil; each = each.Next() {
		if each.Value.(*Breaker).State() != Closed {
			open++
		}
	}
	assert.Equal(t, open, s.Open())
}

func BenchmarkSetGet(b *testing.B) {
	keys := make([]string, 10_000)
	s := NewSet(SetConfig{})
	for i := range keys {
		keys[i] = strconv.Itoa(i)
		s.Get(keys[i])
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Get(keys[i*7919%len(keys)])
		}
	})
	b.Run("contended", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				s.Get(keys[i*7919%len(keys)])
			}
		})
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s.Open()
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Get("new" + strconv.Itoa(i))
		}
	})
}

// A Set tells of the changes of all its breakers, those made later included, and
// counts those that are not closed.
func TestSetWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first record[string]
		s := NewSet(SetConfig{Breaker: Config{Name: "s", SampleSize: 1, OnChange: func(c Change) {
			first.add(c.Key)
			panic("the first observer")
		}}})
		s.Get("a").call(t, Success)
		var told record[string]
		s.Watch(func(Change) { panic("an observer") })
		stop := s.Watch(func(c Change) { told.add(c.Name + "/" + c.Key + " " + c.To.String()) })
		s.Get("a").call(t, Failure)
		s.Get("b").call(t, Failure)
		assert.Equal(t, []string{"s/a open", "s/b open"}, told.all())
		assert.Equal(t, []string{"a", "b"}, first.all())
		assert.Equal(t, 2, s.Open())
		s.Get("a").halfOpen(t)
		s.Get("a").call(t, Success)
		assert.Contains(t, told.all(), "s/a closed")
		assert.Equal(t, 1, s.Open())
		stop()
		stop()
		n := len(told.all())
		s.Get("a").call(t, Failure)
		assert.Len(t, told.all(), n)
		stop = func() {}
		s.Watch(func(Change) { stop() })
		stop = s.Watch(func(Change) { t.Error("called after it was stopped") })
		s.Get("c").call(t, Failure)
		s.Watch(nil)()
		(*Set)(nil).Watch(func(Change) {})()
		assert.Zero(t, (*Set)(nil).Open())
	})
}
