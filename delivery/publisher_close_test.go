package delivery_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// refuseConfirmations fails the store's updates to queued while down is true, and
// counts them.
func refuseConfirmations(records *faultyRecords, down *atomic.Bool) *atomic.Int64 {
	var tries atomic.Int64
	records.fail = func(operation string) error {
		if operation != "update queued" {
			return nil
		}
		tries.Add(1)
		if down.Load() {
			return delivery.ErrStoreDown
		}
		return nil
	}
	return &tries
}

// What a Publish that had begun has saved, Close sends.
func TestCloseWaitsForWhatIsBeingPublished(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		records.lost = func(operation string) error {
			if operation == "save" {
				<-time.After(5 * time.Second) // the answer takes its time
			}
			return nil
		}
		published := make(chan error, 1)
		go func() { published <- f.publisher.Publish(context.Background(), to("a")) }()
		wait(time.Second)
		require.NoError(t, f.publisher.Close(context.Background()))
		require.NoError(t, <-published)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		assert.EqualValues(t, 1, f.waiting())
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), to("b")), delivery.ErrClosed)
	})
}

func TestCloseWaitsForWhatIsBeingRecorded(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		records.fail = func(operation string) error {
			if operation == "update queued" {
				<-time.After(5 * time.Second)
			}
			return nil
		}
		f.publish(to("a"))
		wait(3 * time.Second) // it began after one
		require.NoError(t, f.publisher.Close(context.Background()))
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
	})
}

func TestCloseRecordsWhatItCouldNotAtFirst(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		var down atomic.Bool
		down.Store(true)
		refuseConfirmations(records, &down)
		f.publish(to("a"))
		wait(10 * time.Millisecond)
		time.AfterFunc(20*time.Second, func() { down.Store(false) })
		require.NoError(t, f.publisher.Close(context.Background()))
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
	})
}

// A host that gives no deadline is not held up for ever by a store that is down.
func TestCloseEndsByItselfWithTheGrace(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{
		time.Second: 30 * time.Second, 0: time.Minute, time.Hour: time.Hour,
	} {
		bubble(t, func(f *fixture) { f.closesWithTheStoreDown(grace, want) })
	}
}

func (f *fixture) closesWithTheStoreDown(grace, want time.Duration) {
	f.t.Helper()
	records := f.outboxed(delivery.PublisherConfig{PendingGrace: grace})
	var down atomic.Bool
	down.Store(true)
	tries := refuseConfirmations(records, &down)
	f.publish(to("a"))
	wait(10 * time.Millisecond)
	begin := time.Now()
	err := f.publisher.Close(context.Background())
	require.ErrorIs(f.t, err, delivery.ErrStoreDown)
	require.ErrorIs(f.t, err, context.DeadlineExceeded)
	assert.Equal(f.t, want, time.Since(begin))

	before := tries.Load()
	wait(time.Hour)
	assert.Equal(f.t, before, tries.Load(), "nobody goes on in the background")
	require.NoError(f.t, f.publisher.Close(context.Background()), "there is nothing left to wait for")
}

// A Publish that hangs does not hold up Close for longer than that, either.
func TestCloseDoesNotWaitForEverForAPublish(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		hung := make(chan struct{})
		records.fail = func(string) error {
			<-hung
			return nil
		}
		published := make(chan error, 1)
		go func() { published <- f.publisher.Publish(context.Background(), to("a")) }()
		wait(time.Second)
		begin := time.Now()
		require.ErrorIs(t, f.publisher.Close(context.Background()), context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begin))
		close(hung)
		require.NoError(t, <-published, "it is saved")
		wait(time.Minute)
		f.empty()
		assert.Equal(t, delivery.StatusPending, records.status(t, "a"), "a retry worker sends it")
	})
}

// With a deadline of the host's own Close takes as long as that says, and leaves
// nobody at work.
func TestCloseEndsWithItsContext(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		var down atomic.Bool
		down.Store(true)
		tries := refuseConfirmations(records, &down)
		f.publish(to("a"))
		wait(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, f.publisher.Close(ctx), context.DeadlineExceeded)
		assert.Equal(t, 5*time.Minute, time.Since(begin))
		down.Store(false)
		before := tries.Load()
		wait(time.Hour)
		assert.Equal(t, before, tries.Load())
		assert.Equal(t, delivery.StatusPending, records.status(t, "a"))
	})
}

// What waits to be sent is left alone when Close gives up: the host is about to
// close the transport.
func TestCloseThatGivesUpSendsNoMore(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outboxed(delivery.PublisherConfig{})
		var sends atomic.Int64
		f.transport.onSend = func(time.Duration, delivery.Envelope) error {
			if sends.Add(1) == 1 {
				<-time.After(10 * time.Second)
			}
			return nil
		}
		f.publish(to("a"))
		synctest.Wait() // it is being sent
		f.publish(to("b"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, f.publisher.Close(ctx), context.DeadlineExceeded)
		wait(time.Minute)
		assert.EqualValues(t, 1, sends.Load())
	})
}

// What is being sent, looked up or recorded when Close gives up is broken off, rather
// than left to its own time limit.
func TestCloseThatGivesUpBreaksOffWhatGoesOn(t *testing.T) {
	publish := func(f *fixture, publisher *delivery.Publisher) {
		require.NoError(f.t, publisher.Publish(f.t.Context(), to("a")))
	}
	for name, begin := range map[string]func(f *fixture, publisher *delivery.Publisher, hang func(ctx context.Context)){
		"send": func(f *fixture, publisher *delivery.Publisher, hang func(ctx context.Context)) {
			f.outlet.onSend(func(ctx context.Context, batch []delivery.Envelope) []error {
				hang(ctx)
				return allOf(ctx.Err(), len(batch))
			})
			publish(f, publisher)
		},
		"look-up": func(f *fixture, publisher *delivery.Publisher, hang func(ctx context.Context)) {
			f.records.onGet = hang
			committed, err := publisher.PublishIn(f.t.Context(), f.records, to("a"))
			require.NoError(f.t, err)
			committed()
		},
		"record": func(f *fixture, publisher *delivery.Publisher, hang func(ctx context.Context)) {
			f.records.onUpdate = hang
			publish(f, publisher)
			wait(2 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records})
				require.NoError(t, err)
				var hanging atomic.Int64
				begin(f, publisher, func(ctx context.Context) {
					hanging.Add(1)
					<-ctx.Done()
					hanging.Add(-1)
				})
				synctest.Wait()
				require.EqualValues(t, 1, hanging.Load())
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				require.ErrorIs(t, publisher.Close(ctx), context.DeadlineExceeded)
				synctest.Wait()
				require.Zero(t, hanging.Load())
				require.Equal(t, delivery.StatusPending, f.get("a").Status, "a retry worker sends it")
			})
		})
	}
}

// A Publisher without a Store is closed as one with a Store is.
func TestCloseWithoutAStore(t *testing.T) {
	for name, prepare := range map[string]func(f *fixture){
		"no records":   func(*fixture) {},
		"records only": func(f *fixture) { f.recordsOnly() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				prepare(f)
				f.transport.onSend = func(time.Duration, delivery.Envelope) error {
					<-time.After(5 * time.Second)
					return nil
				}
				published := make(chan error, 1)
				go func() { published <- f.publisher.Publish(context.Background(), to("a")) }()
				wait(time.Second)

				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				require.Equal(t, context.DeadlineExceeded, f.publisher.Close(ctx), "the call goes on")
				f.refusesEverything()
				begin := time.Now()
				require.NoError(t, f.publisher.Close(context.Background()))
				assert.Equal(t, 3*time.Second, time.Since(begin))
				require.NoError(t, <-published)
				assert.EqualValues(t, 1, f.waiting())
				f.refusesEverything()
				require.NoError(t, f.publisher.Close(ctx), "closed before, whatever the context")
			})
		})
	}
}

func (f *fixture) refusesEverything() {
	f.t.Helper()
	ctx := context.Background()
	require.ErrorIs(f.t, f.publisher.Publish(ctx, to("b")), delivery.ErrClosed)
	require.ErrorIs(f.t, f.publisher.Publish(ctx), delivery.ErrClosed)
	require.ErrorIs(f.t, f.publisher.Forward(ctx, delivery.Envelope{Message: to("b")}), delivery.ErrClosed)
	require.ErrorIs(f.t, f.publisher.Cancel(ctx, "b"), delivery.ErrClosed)
	_, err := f.publisher.SendBatch(ctx, []delivery.Message{to("b")})
	require.ErrorIs(f.t, err, delivery.ErrClosed)
	_, err = f.publisher.PublishIn(ctx, f.records, to("b"))
	require.ErrorIs(f.t, err, delivery.ErrClosed)
}

// However calls begin while the Publisher is closed: what returned nil is sent when
// Close returns, and everything else is ErrClosed.
func TestCloseAmongManyCalls(t *testing.T) {
	for range 20 {
		outlet := &sendOnly{}
		publisher, err := delivery.NewPublisher(outlet, delivery.PublisherConfig{})
		require.NoError(t, err)
		var group sync.WaitGroup
		var accepted atomic.Int64
		for range 8 {
			group.Go(func() {
				for {
					err := publisher.Publish(context.Background(), to(delivery.NewID()))
					if err != nil {
						assert.ErrorIs(t, err, delivery.ErrClosed)
						return
					}
					accepted.Add(1)
				}
			})
		}
		for range 2 {
			group.Go(func() { assert.NoError(t, publisher.Close(context.Background())) })
		}
		require.NoError(t, publisher.Close(context.Background()))
		sent := len(outlet.envelopes())
		group.Wait()
		assert.EqualValues(t, sent, accepted.Load())
		assert.Len(t, outlet.envelopes(), sent)
	}
}

// A Publisher that NewPublisher did not make has nothing to close.
func TestCloseOfNoPublisher(t *testing.T) {
	for _, publisher := range []*delivery.Publisher{nil, {}} {
		require.NoError(t, publisher.Close(context.Background()))
		require.ErrorIs(t, publisher.Publish(context.Background(), to("a")), delivery.ErrConfig)
	}
}
