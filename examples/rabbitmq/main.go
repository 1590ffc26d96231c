// Command rabbitmq runs the job of the quickstart, with the same handler, on
// RabbitMQ and Redis. Kill either of them while it runs: nothing is lost. It
// ends with status 1 if its ledger shows a message lost or delivered twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/examples/courier"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// reach is how long to try to reach a server.
const reach = 10 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rabbitmq:", err)
		os.Exit(1)
	}
}

type options struct {
	amqp, redis, name string
	private, verbose  bool
	messages          int
}

func run() (err error) {
	var o options
	flag.StringVar(&o.amqp, "amqp", "amqp://guest:guest@localhost:5672/", "URL of RabbitMQ")
	flag.StringVar(&o.redis, "redis", "redis://localhost:6379/0", "URL of Redis")
	flag.StringVar(&o.name, "name", "barid-demo", "prefix of the queues and exchanges")
	flag.BoolVar(&o.private, "private", false, "start a RabbitMQ and a Redis for this run, instead of -amqp and -redis")
	flag.IntVar(&o.messages, "messages", 2000, "how many messages to publish")
	flag.BoolVar(&o.verbose, "v", false, "log what the pipeline does, to standard error")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.private {
		closeServers, err := start(ctx, &o)
		if err != nil {
			return err
		}
		defer closeServers()
	}
	var logger *slog.Logger
	if o.verbose {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}

	reaching, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	transport, err := rabbitmq.Open(reaching, rabbitmq.Config{URL: o.amqp, Name: o.name, Logger: logger})
	if err != nil {
		return fmt.Errorf("%w\n\nIs RabbitMQ running? Name another one with -amqp, or let -private start one", err)
	}
	defer func() { err = errors.Join(err, transport.Close()) }()

	client, err := redisstore.NewClient(o.redis)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	store := redisstore.New(client, redisstore.Config{})
	defer func() { _ = store.Close() }()
	if err := store.Check(reaching); err != nil {
		return fmt.Errorf("%w\n\nIs Redis running? Name another one with -redis, or let -private start one", err)
	}

	return courier.Run(ctx, courier.Config{
		Transport:   transport,
		Idempotency: store,
		Messages:    o.messages,
		Logger:      logger,
	})
}

// start starts private servers and puts their URLs in place.
func start(ctx context.Context, o *options) (stop func(), err error) {
	fmt.Println("starting a private RabbitMQ and Redis")
	broker, err := servers.NewRabbitMQ(ctx, servers.RabbitMQConfig{})
	if err != nil {
		return nil, err
	}
	redis, err := servers.NewRedis(ctx, servers.RedisConfig{})
	if err != nil {
		return nil, errors.Join(err, broker.Close())
	}
	o.amqp, o.redis = broker.URL(), redis.URL()
	fmt.Printf("RabbitMQ has process %d, Redis %d\n", broker.PID(), redis.PID())
	return func() { _ = errors.Join(broker.Close(), redis.Close()) }, nil
}
