package examples

import (
	"context"
	"database/sql"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// production is the README's first piece of code, so that it compiles.
func production(ctx context.Context, url string, body []byte, handler delivery.Handler,
	deadLetterStore dlq.Store, collector *metrics.Collector,
) {
	redisClient, err := redisstore.NewClient("redis://localhost:6379/0")
	use(err)
	transport, err := rabbitmq.Open(ctx, rabbitmq.Config{URL: url, Name: "orders"})
	use(err)
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	use(err)
	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: body, Priority: delivery.High})
	use(err)

	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Retry:       retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5},
		Idempotency: redisstore.New(redisClient, redisstore.Config{}),
		Breaker:     breaker.New(breaker.Config{}),
		DeadLetters: dlq.NewManager(deadLetterStore, publisher, dlq.Config{}),
		Metrics:     collector,
	})
	use(err)
	err = consumer.Run(ctx)
	use(err)
}

// routed is one consumer's handlers, by type.
func routed(ctx context.Context, publisher *delivery.Publisher) {
	type Code struct{ Digits string }
	type Mail struct{ Template string }
	sendCode := func(context.Context, Code) error { return nil }
	sendMail := func(context.Context, Mail) error { return nil }
	handler, err := delivery.Mux(
		delivery.Route{Type: "sms.code", Handler: delivery.JSON(sendCode)},
		delivery.Route{Type: "mail.*", Handler: delivery.JSON(sendMail)},
	)
	use(handler, err)
	message, err := delivery.NewJSONMessage(delivery.Message{Recipient: "+966500000001", Type: "sms.code"}, Code{Digits: "1234"})
	use(err)
	err = publisher.Publish(ctx, message)
	use(err)
}

// stored is the pieces with a message store.
func stored(ctx context.Context, transport delivery.Transport, handler delivery.Handler, tx *sql.Tx, message delivery.Message) {
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN("orders.db"))
	use(err)
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{})
	use(err)

	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store})
	use(err)
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{Store: store, Idempotency: store.Keys()})
	use(consumer, err)
	worker, err := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{})
	use(worker, err)
	acks, err := delivery.NewAcknowledger(store, delivery.AcknowledgerConfig{})
	use(acks, err)

	committed, err := publisher.PublishIn(ctx, store.In(tx), message)
	use(err)
	if err := tx.Commit(); err == nil {
		committed()
	}
}

func use(...any) {}

// TestReadmeCompiles finds each line of the README's code in this file.
func TestReadmeCompiles(t *testing.T) {
	use(production, routed, stored)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var here []byte
	for _, file := range []string{"readme_test.go", "wiring/main.go"} {
		code, err := os.ReadFile(file)
		require.NoError(t, err)
		here = append(here, code...)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(readme, -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		for line := range strings.Lines(string(block[1])) {
			code, _, _ := strings.Cut(line, "//")
			code, _, _ = strings.Cut(code, ", ...") // what else a config has
			code, _, _ = strings.Cut(code, "...")
			assert.Contains(t, string(here), strings.TrimSpace(code), "the README's %s", line)
		}
	}
}
