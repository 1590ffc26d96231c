package delivery

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// stub is an Incoming of which only the priority counts.
type stub struct {
	Incoming
	priority Priority
	number   int
}

func (s *stub) Priority() Priority { return s.priority }

func stubInflight(priority Priority, number int) *inflight {
	return &inflight{incoming: &stub{priority: priority, number: number}}
}

// slowQueue is the queue's rules, written down the slow way.
type slowQueue struct {
	waiting map[Priority][]*inflight
	passed  map[Priority]int // how often a level was passed over
}

// gone checks that m was allowed to go, and counts what was passed over.
func (s *slowQueue) gone(t *rapid.T, m *inflight, limit int) {
	p := m.priority()
	require.NotEmpty(t, s.waiting[p])
	require.Same(t, s.waiting[p][0], m, "first in, first out within a priority")
	s.waiting[p] = s.waiting[p][1:]
	for _, other := range Priorities() {
		switch {
		case len(s.waiting[other]) == 0:
			s.passed[other] = 0
		case other > p:
			require.GreaterOrEqual(t, s.passed[p], limit, "%s went before %s", p, other)
		case other < p:
			require.Less(t, s.passed[other], limit+3, "%s starves", other)
			s.passed[other]++
		}
	}
	s.passed[p] = 0
}

func (s *slowQueue) size() (n int) {
	for _, p := range Priorities() {
		n += len(s.waiting[p])
	}
	return n
}

func TestQueueOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		q := newQueue(limit)
		model := slowQueue{waiting: map[Priority][]*inflight{}, passed: map[Priority]int{}}
		number := 0
		priority := rapid.SampledFrom([]Priority{Low, Normal, High, Urgent})
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				var messages []*inflight
				for _, p := range rapid.SliceOfN(priority, 1, 20).Draw(t, "priorities") {
					number++
					m := stubInflight(p, number)
					messages = append(messages, m)
					model.waiting[p] = append(model.waiting[p], m)
				}
				require.True(t, q.push(messages...))
			},
			"pop": func(t *rapid.T) {
				if model.size() == 0 {
					return
				}
				m := q.pop()
				model.gone(t, m, limit)
				if rapid.Bool().Draw(t, "put back") {
					require.True(t, q.putBack(m))
					p := m.priority()
					model.waiting[p] = slices.Insert(model.waiting[p], 0, m)
				}
			},
		})
		require.Len(t, q.end(), model.size())
	})
}

func TestQueueWakesAllThatHaveWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		popped := make(chan *inflight, 8)
		for range 8 {
			go func() { popped <- q.pop() }()
		}
		synctest.Wait()
		q.push(stubInflight(Low, 1), stubInflight(Urgent, 2), stubInflight(Low, 3))
		q.push(stubInflight(Low, 4), stubInflight(Low, 5))
		q.putBack(stubInflight(High, 6))
		synctest.Wait()
		assert.Len(t, popped, 6)
		q.end()
		synctest.Wait()
		assert.Len(t, popped, 8)
	})
}

// What is held is handed out to every worker that waits, as soon as it is not.
func TestQueueHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		q.hold(true)
		popped := make(chan *inflight, 8)
		for range 3 {
			go func() { popped <- q.pop() }()
		}
		q.push(stubInflight(Low, 1), stubInflight(Urgent, 2))
		synctest.Wait()
		assert.Empty(t, popped)
		q.hold(false)
		synctest.Wait()
		assert.Len(t, popped, 2)
		assert.Empty(t, q.end())
		synctest.Wait()
		assert.Len(t, popped, 3)
	})
}

func TestQueueEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { assert.Nil(t, q.pop()) })
		}
		synctest.Wait()
		assert.Empty(t, q.end())
		group.Wait()
		assert.False(t, q.push(stubInflight(Low, 1)), "the message stays the caller's")
		assert.False(t, q.putBack(stubInflight(Low, 1)))

		q = newQueue(100)
		q.push(stubInflight(Low, 1), stubInflight(Urgent, 2), stubInflight(Low, 3))
		rest := q.end()
		require.Len(t, rest, 3)
		assert.Equal(t, Urgent, rest[0].priority())
	})
}

func BenchmarkQueue(b *testing.B) {
	queue := newQueue(100)
	messages := make([]*inflight, 32)
	for i := range messages {
		messages[i] = stubInflight(Priorities()[i%4], i)
	}
	b.ReportAllocs()
	for b.Loop() {
		queue.push(messages...)
		for range messages {
			queue.pop()
		}
	}
}
