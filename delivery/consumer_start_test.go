package delivery_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// lateTransport can't be subscribed to until some tries have failed.
type lateTransport struct {
	*faultyTransport
	tries    atomic.Int32
	failures []error // of the first tries
}

func (l *lateTransport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	if try := int(l.tries.Add(1)); try <= len(l.failures) {
		return nil, l.failures[try-1]
	}
	return l.Transport.Subscribe(ctx, config)
}

// lateKeys can't be checked until some tries have failed.
type lateKeys struct {
	idempotency.Store
	tries    atomic.Int32
	failures []error
}

func (l *lateKeys) Check(context.Context) error {
	if try := int(l.tries.Add(1)); try <= len(l.failures) {
		return l.failures[try-1]
	}
	return nil
}

// A consumer that starts before its servers do waits for them, and tells so.
func TestRunWaitsForWhatIsDownAtItsStart(t *testing.T) {
	bubble(t, func(f *fixture) {
		refused := &idempotency.UnavailableError{Op: "check", Err: syscall.ECONNREFUSED}
		transport := &lateTransport{faultyTransport: f.transport, failures: []error{errDown, errDown, syscall.ECONNREFUSED, errDown}}
		keys := &lateKeys{Store: f.store, failures: []error{refused, refused, refused}}
		config := f.config()
		config.Idempotency = keys
		config.Logger = slog.New(slog.NewTextHandler(f.log, nil))
		f.publish(to("a"))
		_, stop := f.consumeFrom(transport, fine, config)
		wait(10 * time.Millisecond)
		assert.False(t, f.up("idempotency"))
		assert.Zero(t, transport.tries.Load())
		wait(time.Second)
		assert.True(t, f.up("idempotency"))
		assert.False(t, f.up("transport"))
		assert.Empty(t, f.attempts("a"))
		wait(time.Minute)
		assert.True(t, f.up("transport"))
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.EqualValues(t, 4, keys.tries.Load())
		assert.EqualValues(t, 5, transport.tries.Load())
		for _, event := range []string{"is down", "is back"} {
			for _, dependency := range []string{"idempotency", "transport"} {
				assert.Equal(t, 1, f.log.count(`msg="dependency `+event+`" dependency=`+dependency), "%s %s", dependency, event)
			}
		}
		require.NoError(t, stop())
	})
}

func TestRunReturnsWhatWillNotChange(t *testing.T) {
	unfit := errors.New("evicts keys")
	for name, test := range map[string]struct{ transport, keys, want error }{
		"closed":      {transport: delivery.ErrClosed, want: delivery.ErrClosed},
		"config":      {transport: delivery.ErrConfig, want: delivery.ErrConfig},
		"permanent":   {transport: retry.Permanent(errDown), want: errDown},
		"unfit store": {keys: unfit, want: unfit},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				transport := &lateTransport{faultyTransport: f.transport}
				if test.transport != nil {
					transport.failures = []error{test.transport}
				}
				if test.keys != nil {
					config.Idempotency = &lateKeys{Store: f.store, failures: []error{test.keys}}
				}
				consumer, err := delivery.NewConsumer(transport, fine, config)
				require.NoError(t, err)
				begin := time.Now()
				require.ErrorIs(t, consumer.Run(f.t.Context()), test.want)
				assert.Equal(t, begin, time.Now(), "at once")
				require.LessOrEqual(t, transport.tries.Load(), int32(1))
			})
		})
	}
}

// Who gives up waiting learns what for.
func TestRunThatCouldNotStartInTime(t *testing.T) {
	bubble(t, func(f *fixture) {
		failures := make([]error, 100)
		for i := range failures {
			failures[i] = errDown
		}
		consumer, err := delivery.NewConsumer(&lateTransport{faultyTransport: f.transport, failures: failures}, fine, f.config())
		require.NoError(t, err)
		limited, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
		defer cancel()
		err = consumer.Run(limited)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errDown)

		ended, cancel := context.WithCancel(f.t.Context())
		time.AfterFunc(10*time.Second, cancel)
		require.NoError(t, consumer.Run(ended), "told to end")
	})
}

// Started is closed from when a consumer has subscribed until that Run has ended.
func TestStarted(t *testing.T) {
	bubble(t, func(f *fixture) {
		transport := &lateTransport{faultyTransport: f.transport, failures: []error{errDown}}
		consumer, stop := f.consumeFrom(transport, fine, f.config())
		started := consumer.Started()
		wait(time.Millisecond)
		assert.False(t, isClosed(started), "subscribed, though it could not")
		<-started
		assert.EqualValues(t, 2, transport.tries.Load())
		assert.Equal(t, started, consumer.Started(), "while it runs it is the same")
		require.NoError(t, stop())

		next := consumer.Started()
		assert.False(t, isClosed(next), "it has ended")
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- consumer.Run(ctx) }()
		<-next
		cancel()
		require.NoError(t, <-ended)

		require.NoError(t, f.transport.Close())
		failed := consumer.Started()
		require.ErrorIs(t, consumer.Run(context.Background()), delivery.ErrClosed)
		assert.False(t, isClosed(failed), "it never started")
		assert.Equal(t, failed, consumer.Started(), "whoever waits does so for the next one")
	})
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}
