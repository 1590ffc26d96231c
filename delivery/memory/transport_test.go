package memory_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func harness(testing.TB) deliverytest.Harness {
	first := memory.New(memory.Config{})
	return deliverytest.Harness{
		Open:  func(testing.TB) delivery.Transport { return first.Another() },
		Quiet: 30 * time.Millisecond, // nothing is on its way anywhere
	}
}

func TestContract(t *testing.T) {
	deliverytest.TestTransport(t, func(tb testing.TB) deliverytest.Harness {
		harness := harness(tb)
		harness.DelayAccuracy = time.Minute // as slow as a machine may be; a bubble is exact
		return harness
	})
}

func TestContractInBubbles(t *testing.T) {
	deliverytest.TestTransportInBubbles(t, func(tb testing.TB) deliverytest.Harness {
		harness := harness(tb)
		harness.DelayAccuracy = time.Nanosecond
		return harness
	})
}

func BenchmarkContract(b *testing.B) { deliverytest.BenchmarkTransport(b, harness) }

func envelope(id string, priority delivery.Priority) delivery.Envelope {
	return delivery.Envelope{Message: delivery.Message{ID: id, Recipient: "r", Priority: priority}}
}

func open(t *testing.T, config memory.Config) *memory.Transport {
	t.Helper()
	transport := memory.New(config)
	t.Cleanup(func() { closed(t, transport) })
	return transport
}

func closed(t *testing.T, transport delivery.Transport) {
	t.Helper()
	require.NoError(t, transport.Close())
}

func subscribe(t *testing.T, transport delivery.Transport, prefetch int) delivery.Subscription {
	t.Helper()
	subscription, err := transport.Subscribe(t.Context(), delivery.SubscribeConfig{Prefetch: prefetch})
	require.NoError(t, err)
	return subscription
}

func receive(t *testing.T, subscription delivery.Subscription) []delivery.Incoming {
	t.Helper()
	incomings, err := subscription.Receive(t.Context())
	require.NoError(t, err)
	return append([]delivery.Incoming(nil), incomings...)
}

func ids(t *testing.T, incomings []delivery.Incoming) []string {
	t.Helper()
	names := make([]string, len(incomings))
	for i, incoming := range incomings {
		envelope, err := incoming.Envelope()
		require.NoError(t, err)
		names[i] = envelope.ID
	}
	return names
}

func TestConfig(t *testing.T) {
	for _, row := range []struct {
		name   string
		config memory.Config
		want   []string
	}{
		{"zero", memory.Config{}, nil},
		{"set", memory.Config{Name: "n", MaxMessages: 1, MaxBodyBytes: 1}, nil},
		{"all wrong", memory.Config{MaxMessages: -1, MaxBodyBytes: -2}, []string{"MaxMessages is -1", "MaxBodyBytes is -2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			transport := memory.New(row.config)
			err := transport.Err()
			if row.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, memory.ErrConfig)
			for _, want := range row.want {
				require.ErrorContains(t, err, want)
			}
			requireUnusable(t, transport)
			requireUnusable(t, transport.Another())
		})
	}
	t.Run("name", func(t *testing.T) {
		assert.Equal(t, "memory", memory.New(memory.Config{}).Name())
		assert.Equal(t, "orders", memory.New(memory.Config{Name: "orders"}).Name())
	})
	t.Run("not made by New", func(t *testing.T) {
		var missing *memory.Transport
		for _, transport := range []*memory.Transport{missing, {}} {
			requireUnusable(t, transport)
			assert.Empty(t, transport.Name())
			assert.Empty(t, transport.DeadLetters())
			assert.Empty(t, transport.TakeDeadLetters())
			assert.Same(t, transport, transport.Another())
		}
	})
	t.Run("prefetch", func(t *testing.T) {
		_, err := memory.New(memory.Config{}).Subscribe(t.Context(), delivery.SubscribeConfig{Prefetch: -1})
		require.ErrorIs(t, err, delivery.ErrConfig)
		assert.ErrorContains(t, err, "Prefetch is -1")
	})
}

func requireUnusable(t *testing.T, transport *memory.Transport) {
	t.Helper()
	ctx := t.Context()
	errs := transport.Send(ctx, make([]delivery.Envelope, 2))
	require.Len(t, errs, 2)
	require.ErrorIs(t, errs[1], memory.ErrConfig)
	require.ErrorIs(t, transport.SendAfter(ctx, time.Second, make([]delivery.Envelope, 1))[0], memory.ErrConfig)
	_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorIs(t, err, memory.ErrConfig)
	_, err = transport.Depth(ctx)
	require.ErrorIs(t, err, memory.ErrConfig)
	require.ErrorIs(t, transport.Ping(ctx), memory.ErrConfig)
	require.ErrorIs(t, transport.DeadLetter(ctx, delivery.DeadLetter{}), memory.ErrConfig)
	require.NoError(t, transport.Close())
}

func TestPrioritiesAreStrict(t *testing.T) {
	transport := open(t, memory.Config{})
	require.Nil(t, transport.Send(t.Context(), []delivery.Envelope{
		envelope("low", delivery.Low), envelope("normal 1", delivery.Normal), envelope("urgent", delivery.Urgent),
		envelope("normal 2", delivery.Normal), envelope("high", delivery.High),
	}))
	got := receive(t, subscribe(t, transport, 0))
	assert.Equal(t, []string{"urgent", "high", "normal 1", "normal 2", "low"}, ids(t, got))
}

func TestRedeliveryKeepsItsPlace(t *testing.T) {
	transport := open(t, memory.Config{})
	first := subscribe(t, transport, 4)
	for _, id := range []string{"1", "2", "3", "4", "5", "6"} {
		require.Nil(t, transport.Send(t.Context(), []delivery.Envelope{envelope(id, delivery.Normal)}))
	}
	held := receive(t, first)
	require.Equal(t, []string{"1", "2", "3", "4"}, ids(t, held))
	require.NoError(t, held[3].Nack())
	require.NoError(t, held[1].Nack())
	again := receive(t, first)
	require.Equal(t, []string{"2", "4"}, ids(t, again), "before what was never received, in the old order")
	require.NoError(t, again[0].Ack())
	require.NoError(t, first.Close())
	require.ErrorIs(t, held[0].Ack(), delivery.ErrStale)
	assert.Equal(t, []string{"1", "3", "4", "5", "6"}, ids(t, receive(t, subscribe(t, transport, 10))))
}

func TestSendWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{MaxMessages: 3})
		batch := []delivery.Envelope{
			envelope("1", delivery.Normal), envelope("2", delivery.Normal), envelope("3", delivery.Normal),
			envelope("4", delivery.Normal), envelope("5", delivery.Normal),
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := transport.Send(ctx, batch)
		require.Len(t, errs, 5)
		for i, err := range errs {
			if i < 3 {
				require.NoError(t, err, "what there was room for is sent")
				continue
			}
			require.ErrorIs(t, err, delivery.ErrBlocked)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}

		// Two senders wait, and get in by turns, with their batches whole.
		sent := make(chan string)
		for _, batch := range [][]delivery.Envelope{
			{envelope("a1", delivery.Normal), envelope("a2", delivery.Normal)},
			{envelope("b1", delivery.Normal), envelope("b2", delivery.Normal)},
		} {
			go func() {
				assert.Nil(t, transport.Send(t.Context(), batch))
				sent <- batch[0].ID
			}()
			synctest.Wait()
		}
		subscription := subscribe(t, transport, 1)
		var order []string
		for range 7 {
			incomings := receive(t, subscription)
			order = append(order, ids(t, incomings)...)
			require.NoError(t, incomings[0].Ack())
			synctest.Wait()
		}
		assert.Equal(t, []string{"1", "2", "3", "a1", "a2", "b1", "b2"}, order)
		assert.Equal(t, []string{"a1", "b1"}, []string{<-sent, <-sent})
	})
}

func TestCloseFreesWaitingSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := memory.New(memory.Config{MaxMessages: 1})
		second := first.Another()
		defer closed(t, second)
		require.Nil(t, first.Send(t.Context(), []delivery.Envelope{envelope("1", delivery.Normal)}))
		freed := make(chan error)
		go func() { freed <- first.Send(t.Context(), []delivery.Envelope{envelope("2", delivery.Normal)})[0] }()
		synctest.Wait()
		passed := make(chan []error)
		go func() { passed <- second.Send(t.Context(), []delivery.Envelope{envelope("3", delivery.Normal)}) }()
		synctest.Wait()
		require.NoError(t, first.Close())
		require.ErrorIs(t, <-freed, delivery.ErrClosed)
		// The one behind moves up.
		subscription := subscribe(t, second, 1)
		require.NoError(t, receive(t, subscription)[0].Ack())
		require.Nil(t, <-passed)
		assert.Equal(t, []string{"3"}, ids(t, receive(t, subscription)))
	})
}

func TestBodyLimit(t *testing.T) {
	transport := open(t, memory.Config{MaxBodyBytes: 3})
	batch := []delivery.Envelope{envelope("1", delivery.Normal), envelope("2", delivery.Normal), envelope("3", -7)}
	batch[0].Body, batch[1].Body = []byte("123"), []byte("1234")
	errs := transport.Send(t.Context(), batch)
	require.Len(t, errs, 3)
	require.NoError(t, errs[0])
	var tooLarge *delivery.TooLargeError
	require.ErrorAs(t, errs[1], &tooLarge)
	assert.Equal(t, delivery.TooLargeError{Field: "Body", Size: 4, Limit: 3}, *tooLarge)
	require.ErrorIs(t, errs[2], delivery.ErrInvalid)
	assert.Equal(t, []string{"1"}, ids(t, receive(t, subscribe(t, transport, 10))))
}

func TestDelaysAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{})
		subscription := subscribe(t, transport, 100)
		start := time.Now()
		for _, row := range []struct {
			id    string
			delay time.Duration
		}{
			{"year", 365 * 24 * time.Hour}, {"second", time.Second}, {"instant", time.Nanosecond},
			{"second too", time.Second}, {"minute", time.Minute},
		} {
			require.Nil(t, transport.SendAfter(t.Context(), row.delay, []delivery.Envelope{envelope(row.id, delivery.Normal)}))
		}
		for _, want := range []struct {
			ids   []string
			after time.Duration
		}{
			{[]string{"instant"}, time.Nanosecond},
			{[]string{"second", "second too"}, time.Second},
			{[]string{"minute"}, time.Minute},
			{[]string{"year"}, 365 * 24 * time.Hour},
		} {
			incomings := receive(t, subscription)
			assert.Equal(t, want.ids, ids(t, incomings))
			assert.Equal(t, want.after, time.Since(start))
		}
	})
}

func TestDelaysWaitForRoomAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{MaxMessages: 1})
		start := time.Now()
		for _, id := range []string{"1", "2", "3"} {
			require.Nil(t, transport.SendAfter(t.Context(), time.Second, []delivery.Envelope{envelope(id, delivery.Normal)}))
		}
		assert.Equal(t, time.Second, time.Since(start), "the second waited for the first to become due, nobody received")
		require.Nil(t, transport.SendAfter(t.Context(), 0, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, transport.SendAfter(ctx, 0, []delivery.Envelope{envelope("4", delivery.Normal)})[0], delivery.ErrBlocked)
		time.Sleep(time.Second)
		assert.Equal(t, []string{"1", "2", "3"}, ids(t, receive(t, subscribe(t, transport, 10))))
	})
}

func TestDelaysStayWhenAllAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := memory.New(memory.Config{})
		require.Nil(t, first.SendAfter(t.Context(), time.Minute, []delivery.Envelope{envelope("1", delivery.Normal)}))
		require.Nil(t, first.SendAfter(t.Context(), 3*time.Minute, []delivery.Envelope{envelope("2", delivery.Normal)}))
		require.NoError(t, first.Close())
		time.Sleep(2 * time.Minute)
		second := first.Another()
		defer closed(t, second)
		subscription := subscribe(t, second, 10)
		assert.Equal(t, []string{"1"}, ids(t, receive(t, subscription)), "what became due meanwhile")
		start := time.Now()
		assert.Equal(t, []string{"2"}, ids(t, receive(t, subscription)))
		assert.Equal(t, time.Minute, time.Since(start))
	})
}

func TestDepthTellsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{})
		send := func(id string, delay time.Duration) {
			require.Nil(t, transport.SendAfter(t.Context(), delay, []delivery.Envelope{envelope(id, delivery.High)}))
		}
		expect := func(want delivery.Depth) {
			t.Helper()
			depths, err := transport.Depth(t.Context())
			require.NoError(t, err)
			assert.Equal(t, map[delivery.Priority]delivery.Depth{
				delivery.Urgent: {}, delivery.High: want, delivery.Normal: {}, delivery.Low: {},
			}, depths)
		}
		expect(delivery.Depth{})
		send("1", 0)
		send("delayed", 10*time.Second)
		time.Sleep(time.Second)
		send("2", 0)
		time.Sleep(time.Second)
		expect(delivery.Depth{Messages: 2, Oldest: 2 * time.Second})
		held := receive(t, subscribe(t, transport, 1))
		expect(delivery.Depth{Messages: 1, Oldest: time.Second})
		time.Sleep(18 * time.Second)
		expect(delivery.Depth{Messages: 2, Oldest: 19 * time.Second})
		require.NoError(t, held[0].Nack())
		expect(delivery.Depth{Messages: 3, Oldest: 20 * time.Second})
	})
}

// A message that woke a subscription whose caller has gone goes to another.
func TestWakeUpIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{})
		for range 200 {
			leaving, staying := subscribe(t, transport, 1), subscribe(t, transport, 1)
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan int)
			go func() {
				incomings, _ := leaving.Receive(ctx)
				left <- len(incomings)
			}()
			synctest.Wait()
			got := make(chan int)
			stay, stop := context.WithCancel(t.Context())
			go func() {
				incomings, _ := staying.Receive(stay)
				got <- len(incomings)
			}()
			synctest.Wait()
			go cancel()
			require.Nil(t, transport.Send(t.Context(), []delivery.Envelope{envelope("1", delivery.Normal)}))
			n := <-left
			synctest.Wait()
			if n == 1 {
				stop()
			}
			require.Equal(t, 1, n+<-got, "one of them has it")
			stop()
			// Take it away with them.
			require.NoError(t, leaving.Close())
			require.NoError(t, staying.Close())
			last := subscribe(t, transport, 1)
			require.NoError(t, receive(t, last)[0].Ack())
			require.NoError(t, last.Close())
		}
	})
}

func TestSettlingWakesAFullSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := open(t, memory.Config{})
		subscription := subscribe(t, transport, 1)
		require.Nil(t, transport.Send(t.Context(), []delivery.Envelope{envelope("1", delivery.Normal)}))
		held := receive(t, subscription)
		came := make(chan []delivery.Incoming)
		go func() {
			incomings, err := subscription.Receive(t.Context())
			assert.NoError(t, err)
			came <- incomings
		}()
		synctest.Wait()
		require.Nil(t, transport.Send(t.Context(), []delivery.Envelope{envelope("2", delivery.Normal)}))
		synctest.Wait()
		select {
		case <-came:
			require.Fail(t, "more than the prefetch came")
		default:
		}
		require.NoError(t, held[0].Ack())
		assert.Equal(t, []string{"2"}, ids(t, <-came))
	})
}

func TestDeadLetters(t *testing.T) {
	transport := open(t, memory.Config{MaxMessages: 2})
	letter := func(id, text string) delivery.DeadLetter {
		return delivery.DeadLetter{ID: id, Error: text, Raw: []byte(text)}
	}
	one := letter("1", "first")
	require.NoError(t, transport.DeadLetter(t.Context(), one, letter("2", "second")))
	one.Raw[0] = 'x'
	assert.Equal(t, []delivery.DeadLetter{letter("1", "first"), letter("2", "second")}, transport.DeadLetters())
	require.NoError(t, transport.DeadLetter(t.Context(), letter("1", "again")), "replacing needs no room")
	require.ErrorIs(t, transport.DeadLetter(t.Context(), letter("1", "refused"), letter("3", "")), delivery.ErrRefused)
	want := []delivery.DeadLetter{letter("1", "again"), letter("2", "second")}
	assert.Equal(t, want, transport.Another().DeadLetters())
	assert.Equal(t, want, transport.TakeDeadLetters())
	assert.Empty(t, transport.DeadLetters())
	require.NoError(t, transport.DeadLetter(t.Context(), letter("3", "third")))
}

func TestSession(t *testing.T) {
	first, other := memory.New(memory.Config{}), memory.New(memory.Config{})
	assert.NotEmpty(t, first.Session())
	assert.Equal(t, first.Session(), first.Another().Session())
	assert.NotEqual(t, first.Session(), other.Session())
	assert.Empty(t, (*memory.Transport)(nil).Session())
	assert.Empty(t, (&memory.Transport{}).Session())
}
