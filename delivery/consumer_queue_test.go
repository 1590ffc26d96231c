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

func stubJob(priority Priority, number int) *job {
	return &job{incoming: &stub{priority: priority, number: number}}
}

// slowBacklog is the backlog's rules, written down the slow way.
type slowBacklog struct {
	waiting, answered map[Priority][]*job
	out               []*job           // taken ahead
	passed            map[Priority]int // how often a level was passed over
}

// next is the job to go next of a level.
func (s *slowBacklog) next(p Priority) *job {
	return slices.Concat(s.answered[p], s.waiting[p], []*job{nil})[0]
}

// gone checks that j was allowed to go, and counts what was passed over.
func (s *slowBacklog) gone(t *rapid.T, j *job, limit int) {
	p := j.incoming.Priority()
	require.Same(t, s.next(p), j, "first in, first out within a priority, with an answer before the others")
	if len(s.answered[p]) > 0 {
		s.answered[p] = s.answered[p][1:]
	} else {
		s.waiting[p] = s.waiting[p][1:]
	}
	for _, other := range Priorities() {
		switch {
		case s.next(other) == nil:
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

func (s *slowBacklog) size() (n int) {
	for _, p := range Priorities() {
		n += len(s.waiting[p]) + len(s.answered[p])
	}
	return n
}

// ahead is how many are out or have an answer.
func (s *slowBacklog) ahead() int {
	n := len(s.out)
	for _, p := range Priorities() {
		n += len(s.answered[p])
	}
	return n
}

// TestBacklogOrder checks the backlog against its rules.
func TestBacklogOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		b := newBacklog(limit)
		model := slowBacklog{waiting: map[Priority][]*job{}, answered: map[Priority][]*job{}, passed: map[Priority]int{}}
		number := 0
		priority := rapid.SampledFrom([]Priority{Low, Normal, High, Urgent})
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				var jobs []*job
				for _, p := range rapid.SliceOfN(priority, 1, 20).Draw(t, "priorities") {
					number++
					j := stubJob(p, number)
					jobs = append(jobs, j)
					model.waiting[p] = append(model.waiting[p], j)
				}
				require.True(t, b.push(jobs...))
			},
			"pop": func(t *rapid.T) {
				if model.size() == 0 {
					return
				}
				j, run := b.pop()
				require.True(t, run)
				model.gone(t, j, limit)
				if rapid.Bool().Draw(t, "put back") {
					j.asked = false
					require.True(t, b.putBack(j))
					p := j.incoming.Priority()
					model.waiting[p] = slices.Insert(model.waiting[p], 0, j)
				}
			},
			"take ahead": func(t *rapid.T) {
				most := rapid.IntRange(0, 10).Draw(t, "most")
				var want []*job
				if n := model.ahead(); n <= most/2 {
					var all []*job
					for _, p := range Priorities() { // the highest first
						all = append(all, model.waiting[p]...)
					}
					want = all[:min(len(all), max(0, most-n))]
				}
				got := b.takeAhead(most)
				require.Len(t, got, len(want))
				for i, j := range want {
					require.Same(t, j, got[i])
					p := j.incoming.Priority()
					model.waiting[p] = model.waiting[p][1:]
				}
				model.out = append(model.out, want...)
			},
			"come back": func(t *rapid.T) {
				if len(model.out) == 0 {
					return
				}
				i := rapid.IntRange(0, len(model.out)-1).Draw(t, "which")
				j := model.out[i]
				model.out = slices.Delete(model.out, i, i+1)
				p := j.incoming.Priority()
				if j.asked = rapid.Bool().Draw(t, "answered"); j.asked {
					model.answered[p] = append(model.answered[p], j)
				} else {
					model.waiting[p] = slices.Insert(model.waiting[p], 0, j)
				}
				require.True(t, b.comeBack(j))
			},
			"": func(t *rapid.T) { require.Equal(t, model.ahead(), b.ahead) },
		})
		require.Len(t, b.end(), model.size())
	})
}

// What has an answer is given back while the jobs are held up, unless it is the
// store that holds them up.
func TestBacklogGivesAnsweredJobsWhileItIsShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog(100)
		b.push(stubJob(Low, 1), stubJob(High, 2), stubJob(Low, 3))
		jobs := b.takeAhead(2)
		require.Len(t, jobs, 2)
		b.shut(gateStore)
		type given struct {
			job *job
			run bool
		}
		pops := make(chan given, 8)
		for range 4 {
			go func() {
				j, run := b.pop()
				pops <- given{j, run}
			}()
		}
		jobs[0].asked = true
		require.True(t, b.comeBack(jobs[0]))
		synctest.Wait()
		require.Empty(t, pops)
		require.Empty(t, b.takeAhead(2))
		b.shut(gateBreaker)
		synctest.Wait()
		require.Equal(t, given{jobs[0], false}, <-pops)
		require.True(t, b.comeBack(jobs[1]), "without an answer it waits like the others")
		jobs[0].asked = false
		require.True(t, b.putBack(jobs[0]))
		synctest.Wait()
		require.Empty(t, pops)
		b.open(gateStore)
		b.open(gateBreaker)
		for range 3 {
			require.True(t, (<-pops).run)
		}
		require.Zero(t, b.ahead)
	})
}

func TestBacklogGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBacklog(100)
		b.shut(gatePaused)
		b.shut(gateStore)
		var popped *job
		var group sync.WaitGroup
		group.Go(func() { popped, _ = b.pop() })
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
			go func() { j, _ := b.pop(); popped <- j }()
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
			group.Go(func() { j, _ := b.pop(); assert.Nil(t, j) })
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
