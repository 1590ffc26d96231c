package breaker

import (
	"bytes"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// record is a list that observers append to, from whichever goroutine.
type record[T any] struct {
	mu   sync.Mutex
	list []T
}

func (r *record[T]) add(item T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, item)
}

func (r *record[T]) all() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

func TestWatchTellsEveryChangeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told record[string]
		b := New(Config{Name: "pay", OpenFor: time.Minute, OnChange: func(c Change) { told.add("config " + c.To.String()) }})
		start := time.Now()
		var changes record[Change]
		stop := b.Watch(func(c Change) {
			changes.add(c)
			told.add("watch " + c.To.String())
		})
		assert.NotPanics(t, func() { b.Watch(nil)() })

		b.trip(t)
		time.Sleep(time.Hour) // nobody asks, and still it becomes half-open in time
		synctest.Wait()
		b.call(t, Success)
		require.Equal(t, []Change{
			{Name: "pay", From: Closed, To: Open, At: start},
			{Name: "pay", From: Open, To: HalfOpen, At: start.Add(time.Minute + 1)},
			{Name: "pay", From: HalfOpen, To: Closed, At: start.Add(time.Hour)},
		}, changes.all())
		require.Equal(t, []string{
			"config open", "watch open", "config half-open", "watch half-open", "config closed", "watch closed",
		}, told.all())

		stop()
		stop()
		b.trip(t)
		assert.Len(t, changes.all(), 3)
		assert.Len(t, told.all(), 7)
	})
}

// An observer uses the breaker, and even changes its state, from inside.
func TestObserverMayUseTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *Breaker
		var told record[State]
		var depth atomic.Int32
		b = New(Config{SampleSize: 1, OnChange: func(c Change) {
			assert.Equal(t, int32(1), depth.Add(1), "not called inside its own call")
			told.add(c.To)
			switch c.To {
			case Open:
				assert.Equal(t, Open, b.State())
				assert.Positive(t, b.refused(t))
			case HalfOpen:
				if len(told.all()) == 2 {
					b.call(t, Failure)
				} else {
					b.call(t, Success)
				}
			case Closed:
				assert.Nil(t, b.blocked())
				b.Watch(func(Change) {})()
			}
			depth.Add(-1)
		}})
		b.call(t, Failure)
		time.Sleep(2*b.config.OpenFor + 2)
		synctest.Wait()
		assert.Equal(t, []State{Open, HalfOpen, Open, HalfOpen, Closed}, told.all())
		assert.Equal(t, Closed, b.State())
	})
}

func TestStopFromInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 1})
		var first, second atomic.Int32
		var stopFirst, stopSecond func()
		stopFirst = b.Watch(func(Change) {
			first.Add(1)
			stopFirst()
			stopSecond() // before the second is told of this very change
		})
		stopSecond = b.Watch(func(Change) { second.Add(1) })
		b.call(t, Failure)
		b.halfOpen(t)
		assert.Equal(t, int32(1), first.Load())
		assert.Zero(t, second.Load())
		assert.Empty(t, b.observers.all)
	})
}

func TestObserverThatPanicsOrExits(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("observer") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				b := New(Config{Name: "b", SampleSize: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				var once sync.Once
				b.Watch(func(Change) { once.Do(end) })
				var told record[State]
				b.Watch(func(c Change) { told.add(c.To) })
				go b.call(t, Failure)
				synctest.Wait()
				require.Equal(t, []State{Open}, told.all(), "the others are told")
				assert.Equal(t, name == "panic", strings.Contains(log.String(), "panicked"))
				b.halfOpen(t)
				b.call(t, Success)
				assert.Equal(t, []State{Open, HalfOpen, Closed}, told.all(), "and nothing is stuck")
			})
		})
	}
}

// A slow observer holds up neither the breaker nor its other users.
func TestSlowObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told record[State]
		b := New(Config{SampleSize: 1, OpenFor: time.Second, OnChange: func(c Change) {
			time.Sleep(time.Minute)
			told.add(c.To)
		}})
		go b.call(t, Failure)
		synctest.Wait()
		start := time.Now()
		require.Equal(t, Open, b.State())
		b.halfOpen(t)
		b.call(t, Success)
		require.Equal(t, Closed, b.State())
		require.Less(t, time.Since(start), 2*time.Second)
		require.Empty(t, told.all())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, []State{Open, HalfOpen, Closed}, told.all())
	})
}
