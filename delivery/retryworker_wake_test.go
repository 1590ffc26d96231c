package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// A phone that was off for hours is on again: what was put off for it is delivered at
// once, in the order in which it was made, and counts nothing.
func TestWakeDeliversWhatWasPutOff(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Retry = nil
		config.Store = f.outboxed(delivery.PublisherConfig{})
		config.Concurrency = 1
		worker := f.newWorker(f.records, f.transport, f.workerConfig())
		end := f.run(worker)
		on := false
		var delivered []string
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if !on && m.Recipient == "off" {
				return retry.Later(8*time.Hour, errOff)
			}
			delivered = append(delivered, m.ID)
			return nil
		}, config)
		for i := range 5 {
			f.publish(delivery.Message{ID: fmt.Sprint("m-", 4-i), Recipient: "off"}, delivery.Message{ID: fmt.Sprint("other ", i), Recipient: "on"})
			wait(time.Minute)
		}
		require.Len(t, delivered, 5)
		delivered, on = nil, true
		woken, err := worker.Wake(context.Background(), delivery.WakeFilter{Recipient: "off"})
		require.NoError(t, err)
		assert.Equal(t, 5, woken)
		wait(time.Second)
		assert.Equal(t, []string{"m-4", "m-3", "m-2", "m-1", "m-0"}, delivered)
		for _, id := range delivered {
			assert.Equal(t, []int{1, 1}, f.attempts(id))
			assert.Equal(t, delivery.StatusDelivered, f.get(id).Status)
		}
		wait(10 * time.Hour)
		assert.Len(t, delivered, 5, "nothing comes a second time")
		require.NoError(t, stop())
		end()
		assert.Equal(t, 1, f.log.count(`msg="messages woken" queue=memory count=5`), f.log.read())
		f.empty()
	})
}

// Wake takes what waits in the store and fits, and nothing else.
func TestWakePicks(t *testing.T) {
	waiting := func(id, recipient, kind string) delivery.Record {
		record := stored(id, delivery.StatusRetrying, time.Now().Add(time.Hour))
		record.Recipient, record.Type = recipient, kind
		return record
	}
	changed := func(record delivery.Record, change func(*delivery.Record)) delivery.Record {
		change(&record)
		return record
	}
	for name, test := range map[string]struct {
		filter delivery.WakeFilter
		want   []string
	}{
		"recipient":          {delivery.WakeFilter{Recipient: "r"}, []string{"r sms", "r mail"}},
		"type":               {delivery.WakeFilter{Type: "sms"}, []string{"r sms", "s sms"}},
		"recipient and type": {delivery.WakeFilter{Recipient: "r", Type: "sms"}, []string{"r sms"}},
		"all":                {delivery.WakeFilter{All: true}, []string{"r sms", "r mail", "s sms"}},
		"nobody":             {delivery.WakeFilter{Recipient: "nobody"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.save(
					waiting("r sms", "r", "sms"), waiting("r mail", "r", "mail"), waiting("s sms", "s", "sms"),
					changed(waiting("of another queue", "r", "sms"), func(r *delivery.Record) { r.Queue = "other" }),
					changed(waiting("being sent", "r", "sms"), func(r *delivery.Record) { r.ClaimedBy = "worker" }),
					changed(waiting("scheduled", "r", "sms"), func(r *delivery.Record) { r.NotBefore = time.Now().Add(time.Minute) }),
					changed(waiting("due", "r", "sms"), func(r *delivery.Record) { r.DueAt = time.Now() }),
					changed(waiting("pending", "r", "sms"), func(r *delivery.Record) { r.Status = delivery.StatusPending }),
					changed(waiting("sent", "r", "sms"), func(r *delivery.Record) { r.Status = delivery.StatusSent }),
					changed(waiting("delivered", "r", "sms"), func(r *delivery.Record) { r.Status, r.DueAt = delivery.StatusDelivered, time.Time{} }),
				)
				before := map[string]delivery.Record{}
				for _, id := range []string{"r sms", "r mail", "s sms", "of another queue", "being sent", "scheduled", "due", "pending", "sent", "delivered"} {
					before[id] = f.get(id)
				}
				worker := f.newWorker(f.records, f.outlet, f.workerConfig())
				woken, err := worker.Wake(context.Background(), test.filter)
				require.NoError(t, err)
				assert.Equal(t, len(test.want), woken)
				for _, id := range test.want {
					after := f.get(id)
					assert.WithinDuration(t, time.Now(), after.DueAt, time.Millisecond)
					assert.Equal(t, after.DueAt, after.NextRetryAt)
					assert.Equal(t, before[id].RetryCount, after.RetryCount)
					assert.Equal(t, before[id].History, after.History)
					delete(before, id)
				}
				for id, record := range before {
					assert.Equal(t, record, f.get(id))
				}
				wait(time.Millisecond)
				again, err := worker.Wake(context.Background(), test.filter)
				require.NoError(t, err)
				assert.Zero(t, again, "what is due is not woken again")
			})
		})
	}
}

// Many are woken in batches, each once, in the order of their age.
func TestWakeInBatches(t *testing.T) {
	bubble(t, func(f *fixture) {
		const n = 1234
		for i := range n {
			record := stored(fmt.Sprintf("m-%04d", i), delivery.StatusRetrying, time.Now().Add(time.Duration(n-i)*time.Hour))
			record.CreatedAt = time.Now().Add(time.Duration(i) * time.Millisecond)
			f.save(record)
		}
		calls := f.records.calls.Load()
		worker := f.newWorker(f.records, f.outlet, f.workerConfig())
		woken, err := worker.Wake(context.Background(), delivery.WakeFilter{All: true})
		require.NoError(t, err)
		assert.Equal(t, n, woken)
		assert.EqualValues(t, 3, f.records.calls.Load()-calls, "updates")
		wait(time.Second)
		require.NoError(t, worker.RunOnce(context.Background()))
		f.sentBetween(n, 1, 1)
		for i, envelope := range f.outlet.envelopes() {
			require.Equal(t, fmt.Sprintf("m-%04d", i), envelope.ID)
		}
	})
}

func TestWakeFaults(t *testing.T) {
	bubble(t, func(f *fixture) {
		worker := f.newWorker(f.records, f.outlet, f.workerConfig())
		for text, filter := range map[string]delivery.WakeFilter{
			"WakeFilter is empty, want Recipient, Type or All": {},
			"WakeFilter.All is set beside Recipient or Type":   {All: true, Type: "sms"},
		} {
			_, err := worker.Wake(context.Background(), filter)
			require.ErrorIs(t, err, delivery.ErrQuery)
			require.ErrorContains(t, err, text)
		}
		for i := range 600 {
			f.save(stored(fmt.Sprint("m-", i), delivery.StatusRetrying, time.Now().Add(time.Hour)))
		}
		all := delivery.WakeFilter{All: true}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := worker.Wake(ended, all)
		require.ErrorIs(t, err, context.Canceled)

		updates := 0
		f.records.fail = func(operation string) error {
			if updates++; strings.HasPrefix(operation, "update") && updates == 2 {
				return delivery.ErrStoreDown
			}
			return nil
		}
		woken, err := worker.Wake(context.Background(), all)
		require.ErrorIs(t, err, delivery.ErrStoreDown)
		assert.Equal(t, 500, woken)
		woken, err = worker.Wake(context.Background(), all)
		require.NoError(t, err)
		assert.LessOrEqual(t, 100, woken)
	})
}

// hangingStore answers neither lists nor updates.
type hangingStore struct {
	delivery.Store
	lists bool // it answers lists
}

func (s hangingStore) List(ctx context.Context, query delivery.RecordQuery) (delivery.RecordPage, error) {
	if s.lists {
		return s.Store.List(ctx, query)
	}
	<-ctx.Done()
	return delivery.RecordPage{}, ctx.Err()
}

func (hangingStore) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	<-ctx.Done()
	return make([]delivery.Progress, len(updates)), slices.Repeat([]error{ctx.Err()}, len(updates))
}

// A caller without a deadline is not told of one.
func TestWakeOnAStoreThatHangs(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m-1", delivery.StatusRetrying, time.Now().Add(time.Hour)))
		for _, lists := range []bool{false, true} {
			worker := f.newWorker(hangingStore{f.records, lists}, f.outlet, f.workerConfig())
			_, err := worker.Wake(context.Background(), delivery.WakeFilter{All: true})
			require.ErrorIs(t, err, delivery.ErrStoreDown)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err = worker.Wake(ctx, delivery.WakeFilter{All: true})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}

// A worker takes what it claims, whoever wakes it in the same moment: no message is
// sent twice.
func TestWakeWhileWorkersSend(t *testing.T) {
	bubble(t, func(f *fixture) {
		const n = 2000
		for i := range n {
			f.save(stored(fmt.Sprint("m-", i), delivery.StatusRetrying, time.Now().Add(time.Duration(i)*time.Millisecond)))
		}
		config := f.workerConfig()
		config.BatchSize = 50
		f.outlet.onSend(func(context.Context, []delivery.Envelope) []error {
			<-time.After(time.Millisecond)
			return nil
		})
		worker := f.newWorker(f.records, f.outlet, config)
		defer f.work(config)()
		defer f.work(config)()
		for range 100 {
			_, err := worker.Wake(context.Background(), delivery.WakeFilter{All: true})
			require.NoError(t, err)
			<-time.After(3 * time.Millisecond)
		}
		wait(time.Minute)
		f.sentBetween(n, 1, 1)
	})
}
