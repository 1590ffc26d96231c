package deliverytest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

var errNotTold = errors.New("it was not told")

// watched keeps the earliest time that a watcher was told since it was asked
// last.
type watched struct {
	mu       sync.Mutex
	earliest time.Time
}

func (w *watched) tell(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.earliest.IsZero() || at.Before(w.earliest) {
		w.earliest = at
	}
}

func (w *watched) take() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.earliest
	w.earliest = time.Time{}
	return at
}

// watches tells that every change that makes something due is told.
func watches(r *storeRig) {
	watcher, ok := r.store.(delivery.StoreWatcher)
	if !ok {
		return
	}
	var first, second watched
	defer watcher.Watch(first.tell)()
	defer watcher.Watch(second.tell)()
	queued := func(id string, retries int, due time.Time) delivery.Update {
		return delivery.Update{ID: id, Status: delivery.StatusRetrying, RetryCount: retries, At: after(1), DueAt: due}
	}
	for _, step := range []struct {
		what string
		do   func()
		want time.Time
	}{
		{"Save", func() { r.save(dueRecord(0, delivery.StatusPending, after(50))) }, after(50)},
		{"Save of a later one", func() { r.save(dueRecord(1, delivery.StatusRetrying, after(60))) }, after(60)},
		{"Save of three", func() {
			r.save(dueRecord(2, delivery.StatusPending, after(80)), dueRecord(3, delivery.StatusSent, after(40)), plainRecord(4))
		}, after(40)},
		{"Save of what is there, and of what is not", func() {
			r.store.Save(r.Context(), dueRecord(0, delivery.StatusPending, after(1)), dueRecord(5, delivery.StatusPending, after(45)))
		}, after(45)},
		{"Update", func() { r.update(queued("record-0000", 1, after(30))) }, after(30)},
		{"Update to a later time", func() { r.update(queued("record-0000", 2, after(90))) }, after(90)},
		{"Update of three, one of which is late", func() {
			r.store.Update(r.Context(), queued("record-0001", 1, after(70)), queued("record-0000", 1, after(2)), queued("record-0004", 1, after(35)))
		}, after(35)},
	} {
		step.do()
		for name, w := range map[string]*watched{"first": &first, "second": &second} {
			var at time.Time
			r.eventually("the "+name+" watcher is told of "+step.what, func() error {
				if at = w.take(); at.IsZero() {
					return errNotTold
				}
				return nil
			})
			if !at.Equal(step.want) {
				r.Errorf("%s: the %s watcher was told %s, want %s", step.what, name, at, step.want)
			}
		}
	}
}

// watchStops tells that nobody is called any more who has stopped, while there
// is always something to tell.
func watchStops(r *storeRig) {
	watcher, ok := r.store.(delivery.StoreWatcher)
	if !ok {
		return
	}
	var stays watched
	defer watcher.Watch(stays.tell)()
	var saving sync.WaitGroup
	over := make(chan struct{})
	saving.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
				r.save(dueRecord(i, delivery.StatusPending, after(i)))
			}
		}
	})
	for i := 0; i < 20 && !r.Failed(); i++ {
		var stopped atomic.Bool
		var once sync.Once
		called := make(chan struct{})
		stop := watcher.Watch(func(time.Time) {
			if stopped.Load() {
				r.Errorf("Watch: due was called after stop had returned")
			}
			once.Do(func() { close(called) })
		})
		select {
		case <-called: // it is in the midst of it
		case <-r.patience().Done():
			r.Errorf("Watch: nobody was told of a Save")
		}
		stop()
		stopped.Store(true)
		stop()
	}
	close(over)
	saving.Wait()
	stays.take()
	r.save(dueRecord(-1, delivery.StatusPending, after(7)))
	r.eventually("who stays is told", func() error {
		if stays.take().IsZero() {
			return errNotTold
		}
		return nil
	})
}

// watchHoldsNothing tells that the store goes on while somebody is told.
func watchHoldsNothing(r *storeRig) {
	watcher, ok := r.store.(delivery.StoreWatcher)
	if !ok {
		return
	}
	told, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop := watcher.Watch(func(time.Time) {
		once.Do(func() {
			close(told)
			<-goOn
		})
	})
	var saving sync.WaitGroup
	saving.Go(func() { r.save(dueRecord(0, delivery.StatusPending, after(0))) })
	select {
	case <-told:
	case <-r.patience().Done():
		close(goOn)
		r.Fatalf("Watch: nobody was told of a Save")
	}
	used := make(chan struct{})
	go func() {
		defer close(used)
		r.kept(dueRecord(0, delivery.StatusPending, after(0)))
		r.save(plainRecord(1))
		r.lists("of all", delivery.RecordQuery{}, "record-0001", "record-0000")
		r.nextDue(after(0), delivery.StatusPending)
		r.update(delivery.Update{ID: "record-0001", Status: delivery.StatusQueued, At: after(1)})
	}()
	select {
	case <-used:
	case <-r.patience().Done():
		r.Errorf("Watch: the store can't be used while somebody is told")
	}
	close(goOn)
	<-used
	saving.Wait()
	stop()
}

// storeLeavesNoGoroutines uses a store a few times. The first time does not
// count: what is shared by all stores may begin then.
func storeLeavesNoGoroutines(t *testing.T, patience time.Duration, open func(tb testing.TB) delivery.Store) {
	use := func(t *testing.T) {
		r := newStoreRig(t, patience, open(t))
		stop := func() {}
		if watcher, ok := r.store.(delivery.StoreWatcher); ok {
			stop = watcher.Watch(func(time.Time) {})
		}
		r.save(dueRecord(0, delivery.StatusPending, after(0)))
		r.claims(delivery.StatusPending, "w", after(1), 1, "record-0000")
		r.update(delivery.Update{ID: "record-0000", Status: delivery.StatusQueued, At: after(1)})
		r.lists("of all", delivery.RecordQuery{}, "record-0000")
		stop()
	}
	t.Run("First", use)
	before := goroutines()
	for _, name := range []string{"Second", "Third"} {
		t.Run(name, use)
	}
	newRig(t, Harness{Patience: patience}).eventually("all goroutines have ended", func() error { return newSince(before) })
}
