package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// The process dies between the send and its record: one more copy, no more.
func TestACrashBetweenSendAndRecordSendsOnceMore(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.backlog(20)
		begin := time.Now()
		dying := dying(f.records)
		stop := f.run(f.newWorker(dying, f.outlet, f.workerConfig()))
		wait(time.Second)
		stop()
		require.Len(f.t, f.outlet.sent(), 20)
		require.Equal(f.t, delivery.StatusRetrying, f.get("m-0").Status)

		defer f.work(f.workerConfig())()
		wait(59*time.Second - time.Since(begin))
		require.Equal(f.t, 1, f.outlet.sent()["m-0"], "the lease goes on")
		wait(2 * time.Second)
		f.sentBetween(20, 2, 2)
		wait(time.Hour)
		f.sentBetween(20, 2, 2)
	})
}

// Two workers share a store, one is killed in the middle of its work: every
// message is sent, each at most once more.
func TestTwoWorkersOneKilled(t *testing.T) {
	for name, killed := range map[string]func(store *faultyRecords, outlet *dyingOutlet, dies func() bool){
		"after a claim": func(store *faultyRecords, _ *dyingOutlet, dies func() bool) {
			store.lost = func(operation string) error {
				if operation == "claim" && dies() {
					return errDown
				}
				return nil
			}
		},
		"while it sends": func(_ *faultyRecords, outlet *dyingOutlet, dies func() bool) { outlet.dies = dies },
		"before it records": func(store *faultyRecords, _ *dyingOutlet, dies func() bool) {
			store.fail = func(operation string) error {
				if isUpdate(operation) && dies() {
					return errDown
				}
				return nil
			}
		},
		"after it recorded": func(store *faultyRecords, _ *dyingOutlet, dies func() bool) {
			store.lost = func(operation string) error {
				if isUpdate(operation) && dies() {
					return errDown
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				const n, batch = 1000, 50
				f.backlog(n)
				config := f.workerConfig()
				config.BatchSize = batch
				f.outlet.onSend(func(context.Context, []delivery.Envelope) []error {
					<-time.After(time.Second) // so that both get to work
					return nil
				})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				store, outlet := &faultyRecords{Store: f.records.Store}, &dyingOutlet{sendOnly: f.outlet}
				var steps atomic.Int64
				killed(store, outlet, func() bool {
					if steps.Add(1) < 4 {
						return false
					}
					store.down.Store(true)
					cancel()
					return true
				})
				ended := make(chan error, 1)
				go func() { ended <- f.newWorker(store, outlet, config).Run(ctx) }()
				defer f.work(config)()
				wait(3 * time.Minute)
				require.NoError(f.t, <-ended)
				copies := f.sentBetween(n, 1, 2)
				require.LessOrEqual(f.t, copies, batch, "what it had in hand")
			})
		})
	}
}

// dyingOutlet is the outlet of a process that may die in the middle of a send.
type dyingOutlet struct {
	*sendOnly
	dies func() bool
}

func (o *dyingOutlet) Send(ctx context.Context, batch []delivery.Envelope) []error {
	if o.dies == nil || !o.dies() {
		return o.sendOnly.Send(ctx, batch)
	}
	o.sendOnly.Send(ctx, batch[:len(batch)/2])
	return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
}

// Many workers at once send everything, and nothing twice.
func TestManyWorkers(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.BatchSize = 7
		for range 8 {
			defer f.work(config)()
		}
		for range 10 {
			wait(time.Second)
			for i := range 100 {
				id := fmt.Sprint("m-", time.Now().UnixNano(), i)
				f.save(stored(id, delivery.StatusRetrying, time.Now().Add(time.Duration(i)*time.Millisecond)))
			}
		}
		wait(time.Minute)
		f.sentBetween(1000, 1, 1)
	})
}
