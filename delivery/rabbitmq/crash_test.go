package rabbitmq

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/retry"
)

// The process that a message kills, by what tells it from a test.
const (
	victimURL   = "BARID_TEST_VICTIM_URL"
	victimName  = "BARID_TEST_VICTIM_NAME"
	victimRedis = "BARID_TEST_VICTIM_REDIS"
)

// A message that kills its process becomes a dead letter, and those beside it are
// delivered. The processes are real, and so is the kill.
func TestAMessageThatKillsItsProcess(t *testing.T) {
	t.Parallel()
	for name, redisURL := range map[string]func() string{
		"counted by the broker": func() string { return "" },
		"counted in Redis":      func() string { return shared.RedisURL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := light(t, shared.AMQP(t))
			store := redisURL()
			transport := open(t, c)
			publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
			require.NoError(t, err)
			messages := []delivery.Message{{ID: "poison", Recipient: "r"}}
			for i := range 10 {
				messages = append(messages, delivery.Message{ID: fmt.Sprint(i), Recipient: "r"})
			}
			require.NoError(t, publisher.Publish(t.Context(), messages...))
			killed := 0
			for killed < 10 {
				victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$", "-test.timeout=1m") //nolint:gosec // this program
				victim.Env = append(os.Environ(), victimURL+"="+c.URL, victimName+"="+c.Name, victimRedis+"="+store)
				out, err := victim.CombinedOutput()
				if err == nil {
					break // all is done
				}
				status, _ := victim.ProcessState.Sys().(syscall.WaitStatus)
				require.Equal(t, syscall.SIGKILL, status.Signal(), "%s", out)
				killed++
			}
			assert.GreaterOrEqual(t, killed, 5)
			assert.Less(t, killed, 8)
			depths, err := transport.Depth(t.Context())
			require.NoError(t, err)
			assert.Zero(t, depths[delivery.Normal].Messages)
			sink := newSink()
			collect(t, transport, sink, CollectorConfig{})
			letters := sink.await(t, 1)
			require.Contains(t, letters, "poison")
			assert.Equal(t, delivery.ReasonCrashed, letters["poison"].Reason)
		})
	}
}

// TestVictim is the process that a message kills. It ends by itself when nothing has
// come for a while.
func TestVictim(t *testing.T) {
	url := os.Getenv(victimURL)
	if url == "" {
		return
	}
	transport, err := Open(t.Context(), Config{URL: url, Name: os.Getenv(victimName), Topology: withoutLadder(Quorum)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(3*time.Second, cancel)
	config := delivery.ConsumerConfig{
		Retry: retry.Exponential{Base: time.Second, MaxRetries: 2}, IdempotencyLease: time.Second, MaxCrashes: 4,
	}
	if url := os.Getenv(victimRedis); url != "" {
		client, err := redisstore.NewClient(url)
		require.NoError(t, err)
		defer client.Close() //nolint:errcheck // the process ends
		config.Idempotency = redisstore.New(client, redisstore.Config{Prefix: os.Getenv(victimName)})
	}
	var once sync.Once
	consumer, err := delivery.NewConsumer(transport, func(_ context.Context, m delivery.Message) error {
		idle.Reset(3 * time.Second)
		if m.ID == "poison" {
			once.Do(func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
		}
		return nil
	}, config)
	require.NoError(t, err)
	require.NoError(t, consumer.Run(ctx))
	require.NoError(t, transport.Close())
}
