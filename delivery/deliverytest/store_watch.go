package deliverytest

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
)

var errNotTold = errors.New("it was not told")

// watched remembers the earliest time that a watcher was told since take was
// called.
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

// watches checks that watchers are told of every change that makes something
// due.
func watches(t *storeSubtest) {
	watcher, ok := t.store.(delivery.StoreWatcher)
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
		{"Save", func() { t.save(dueRecord(0, delivery.StatusPending, after(50))) }, after(50)},
		{"Save of a later one", func() { t.save(dueRecord(1, delivery.StatusRetrying, after(60))) }, after(60)},
		{"Save of three", func() {
			t.save(dueRecord(2, delivery.StatusPending, after(80)), dueRecord(3, delivery.StatusSent, after(40)), plainRecord(4))
		}, after(40)},
		{"Save of what is there, and of what is not", func() {
			t.store.Save(t.Context(), dueRecord(0, delivery.StatusPending, after(1)), dueRecord(5, delivery.StatusPending, after(45)))
		}, after(45)},
		{"Update", func() { t.update(queued("record-0000", 1, after(30))) }, after(30)},
		{"Update to a later time", func() { t.update(queued("record-0000", 2, after(90))) }, after(90)},
		{"Update of three, one of which is late", func() {
			t.store.Update(t.Context(), queued("record-0001", 1, after(70)), queued("record-0000", 1, after(2)), queued("record-0004", 1, after(35)))
		}, after(35)},
	} {
		step.do()
		for name, w := range map[string]*watched{"first": &first, "second": &second} {
			var at time.Time
			t.eventually("the "+name+" watcher is told of "+step.what, func() error {
				if at = w.take(); at.IsZero() {
					return errNotTold
				}
				return nil
			})
			if !at.Equal(step.want) {
				t.Errorf("%s: the %s watcher was told %s, want %s", step.what, name, at, step.want)
			}
		}
	}
}

// watchStops checks that a watcher is not called after it was stopped, while
// records become due all the time.
func watchStops(t *storeSubtest) {
	watcher, ok := t.store.(delivery.StoreWatcher)
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
				t.save(dueRecord(i, delivery.StatusPending, after(i)))
			}
		}
	})
	for i := 0; i < 20 && !t.Failed(); i++ {
		var stopped atomic.Bool
		var once sync.Once
		called := make(chan struct{})
		stop := watcher.Watch(func(time.Time) {
			if stopped.Load() {
				t.Errorf("Watch: due was called after stop had returned")
			}
			once.Do(func() { close(called) })
		})
		select {
		case <-called: // it may be in the middle of a call
		case <-t.boundedContext().Done():
			t.Errorf("Watch: nobody was told of a Save")
		}
		stop()
		stopped.Store(true)
		stop()
	}
	close(over)
	saving.Wait()
	stays.take()
	t.save(dueRecord(-1, delivery.StatusPending, after(7)))
	t.eventually("the watcher that stays is told", func() error {
		if stays.take().IsZero() {
			return errNotTold
		}
		return nil
	})
}

// watchHoldsNothing checks that the store can be used while a watcher is being
// told.
func watchHoldsNothing(t *storeSubtest) {
	watcher, ok := t.store.(delivery.StoreWatcher)
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
	saving.Go(func() { t.save(dueRecord(0, delivery.StatusPending, after(0))) })
	select {
	case <-told:
	case <-t.boundedContext().Done():
		close(goOn)
		t.Fatalf("Watch: nobody was told of a Save")
	}
	used := make(chan struct{})
	go func() {
		defer close(used)
		t.checkRecords(dueRecord(0, delivery.StatusPending, after(0)))
		t.save(plainRecord(1))
		t.checkList("of all", delivery.RecordQuery{}, "record-0001", "record-0000")
		t.checkNextDue(after(0), delivery.StatusPending)
		t.update(delivery.Update{ID: "record-0001", Status: delivery.StatusQueued, At: after(1)})
	}()
	select {
	case <-used:
	case <-t.boundedContext().Done():
		t.Errorf("Watch: the store can't be used while somebody is told")
	}
	close(goOn)
	<-used
	saving.Wait()
	stop()
}
