package delivery

import (
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

func stubJob(priority Priority, number int) *job {
	return &job{incoming: &stub{priority: priority, number: number}}
}

// TestBacklogOrder checks the backlog against its rules, written down the slow
// way: one list for each priority, and how often its head was passed over.
func TestBacklogOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		b := newBacklog(limit)
		waiting := map[Priority][]*job{}
		passed := map[Priority]int{}
		size, number := 0, 0
		priority := rapid.SampledFrom([]Priority{Low, Normal, High, Urgent})
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				var jobs []*job
				for _, p := range rapid.SliceOfN(priority, 1, 20).Draw(t, "priorities") {
					number++
					j := stubJob(p, number)
					jobs = append(jobs, j)
					waiting[p] = append(waiting[p], j)
				}
				size += len(jobs)
				require.True(t, b.push(jobs...))
			},
			"pop and put back": func(t *rapid.T) {
				if size == 0 {
					return
				}
				j := b.pop()
				require.True(t, b.putBack(j))
				// It is the first of its level again, but the passed ones were passed.
				p := j.incoming.Priority()
				require.Same(t, waiting[p][0], j)
				note(passed, waiting, p)
			},
			"pop": func(t *rapid.T) {
				if size == 0 {
					return
				}
				j := b.pop()
				size--
				p := j.incoming.Priority()
				require.Same(t, waiting[p][0], j, "first in, first out within a priority")
				for _, higher := range Priorities() {
					if higher > p && len(waiting[higher]) > 0 {
						require.GreaterOrEqual(t, passed[p], limit, "%s went before %s", p, higher)
					}
				}
				for _, lower := range Priorities() {
					if lower < p && len(waiting[lower]) > 0 {
						require.Less(t, passed[lower], limit+3, "%s starves", lower)
					}
				}
				note(passed, waiting, p)
				waiting[p] = waiting[p][1:]
				if len(waiting[p]) == 0 {
					passed[p] = 0
				}
			},
		})
	})
}

// note counts what was passed over when a job of priority p went.
func note(passed map[Priority]int, waiting map[Priority][]*job, p Priority) {
	passed[p] = 0
	for _, lower := range Priorities() {
		if lower < p && len(waiting[lower]) > 0 {
			passed[lower]++
		}
	}
}

func TestBacklogGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog(100)
		b.shut(gatePaused)
		b.shut(gateStore)
		var popped *job
		var group sync.WaitGroup
		group.Go(func() { popped = b.pop() })
		want := stubJob(Normal, 1)
		b.push(want)
		_, changed := b.state()
		b.open(gatePaused)
		<-changed
		synctest.Wait()
		assert.Nil(t, popped, "another gate is still shut")
		b.open(gateStore)
		group.Wait()
		assert.Same(t, want, popped)
		flowing, _ := b.state()
		assert.True(t, flowing)
	})
}

func TestBacklogWakesAllThatHaveWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog(100)
		popped := make(chan *job, 8)
		for range 8 {
			go func() { popped <- b.pop() }()
		}
		synctest.Wait()
		b.push(stubJob(Low, 1), stubJob(Urgent, 2), stubJob(Low, 3))
		b.push(stubJob(Low, 4), stubJob(Low, 5))
		b.putBack(stubJob(High, 6))
		synctest.Wait()
		assert.Len(t, popped, 6)
		b.end()
		synctest.Wait()
		assert.Len(t, popped, 8)
	})
}

func TestBacklogEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog(100)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { assert.Nil(t, b.pop()) })
		}
		synctest.Wait()
		assert.Empty(t, b.end())
		group.Wait()
		assert.False(t, b.push(stubJob(Low, 1)), "the job stays the caller's")
		assert.False(t, b.putBack(stubJob(Low, 1)))

		b = newBacklog(100)
		b.push(stubJob(Low, 1), stubJob(Urgent, 2), stubJob(Low, 3))
		rest := b.end()
		require.Len(t, rest, 3)
		assert.Equal(t, Urgent, rest[0].incoming.Priority())
	})
}

func BenchmarkBacklog(b *testing.B) {
	backlog := newBacklog(100)
	jobs := make([]*job, 32)
	for i := range jobs {
		jobs[i] = stubJob(Priorities()[i%4], i)
	}
	b.ReportAllocs()
	for b.Loop() {
		backlog.push(jobs...)
		for range jobs {
			backlog.pop()
		}
	}
}
