// Command wiring is the shortest real wiring, to be copied: one process, no server,
// everything kept in a SQLite file. Start it, kill it, start it again.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

type order struct{ Text string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	logger := slog.New(slog.NewTextHandler(os.Stdout, nil))
	err := run(ctx, "orders.db", logger)
	stop()
	if err != nil {
		logger.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string, logger *slog.Logger) (err error) {
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{Logger: logger})
	if err != nil {
		return err
	}
	transport := memory.New(memory.Config{Name: "orders"}) // or rabbitmq.Open
	policy := retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5}
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store, Logger: logger})
	letters := dlq.NewManager(store.DeadLetters(), publisher, dlq.Config{Logger: logger})
	consumer, err2 := delivery.NewConsumer(transport, delivery.JSON(send), delivery.ConsumerConfig{
		Store: store, Idempotency: store.Keys(), Retry: policy, Breaker: breaker.New(breaker.Config{}), DeadLetters: letters, Logger: logger,
	})
	worker, err3 := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{Retry: policy, DeadLetters: letters, Logger: logger})
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	stopWorker, stopConsumer, stopReplays := start(worker.Run), start(consumer.Run), start(letters.RunJobs)
	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: []byte(`{"Text": "hello"}`)})
	<-ctx.Done() // a server would serve until now
	return errors.Join(err, stopReplays(), publisher.Close(context.Background()), stopConsumer(), stopWorker(), transport.Close())
}

// send delivers an order. Its error decides what becomes of the message.
func send(_ context.Context, o order) error {
	_, err := os.Stdout.WriteString("sent: " + o.Text + "\n")
	return err
}

// start runs a part until it is stopped.
func start(run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() error { cancel(); return <-ended }
}
