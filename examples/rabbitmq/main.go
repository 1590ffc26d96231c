// Command rabbitmq runs the job of the quickstart, with the same handler, on what
// a host has in production: messages and delayed retries in RabbitMQ, idempotency
// keys and dead letters in Redis. Kill either of them while it runs: nothing is
// lost. It ends with status 1 if its ledger shows a message lost, or delivered
// twice without a reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	letters "github.com/esh3artech/barid/dlq/redisstore"
	"github.com/esh3artech/barid/examples/courier"
	keys "github.com/esh3artech/barid/idempotency/redisstore"
)

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
	reach             time.Duration
}

func run() (err error) {
	var o options
	flag.StringVar(&o.amqp, "amqp", "amqp://guest:guest@localhost:5672/", "URL of RabbitMQ")
	flag.StringVar(&o.redis, "redis", "redis://localhost:6379/0", "URL of Redis")
	flag.StringVar(&o.name, "name", "barid-demo", "prefix of the queues and exchanges")
	flag.BoolVar(&o.private, "private", false, "start a RabbitMQ and a Redis for this run, instead of -amqp and -redis")
	flag.IntVar(&o.messages, "messages", 2000, "how many messages to publish")
	flag.DurationVar(&o.reach, "reach", 30*time.Second, "how long to try to reach the servers")
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

	return host(ctx, o, logger)
}

// host is what an application does: it opens what it runs on, sees that it is
// there, wires the pieces together, and runs.
func host(ctx context.Context, o options, logger *slog.Logger) (err error) {
	reaching, cancel := context.WithTimeout(ctx, o.reach)
	defer cancel()
	transport, err := rabbitmq.Open(reaching, rabbitmq.Config{URL: o.amqp, Name: o.name, Logger: logger})
	if err != nil {
		return fmt.Errorf("%w\n\nIs RabbitMQ running? Name another one with -amqp, or let -private start one", err)
	}
	defer func() { err = errors.Join(err, transport.Close()) }()

	redis.SetLogger(keys.ClientLog{Logger: logger})
	client, err := keys.NewClient(o.redis)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	idempotency := keys.New(client, keys.Config{Prefix: o.name + ":"})
	defer func() { err = errors.Join(err, idempotency.Close()) }()
	deadLetters := letters.New(client, letters.Config{Prefix: o.name + ":dlq"})
	// Redis must not evict keys or dead letters: a host that starts refuses to.
	if err := errors.Join(idempotency.Check(reaching), deadLetters.Check(reaching)); err != nil {
		return fmt.Errorf("%w\n\nIs Redis running? Name another one with -redis, or let -private start one", err)
	}

	return courier.Run(ctx, courier.Config{
		Transport:   transport,
		Idempotency: idempotency,
		DeadLetters: deadLetters,
		Messages:    o.messages,
		Logger:      logger,
	})
}

// start starts private servers and puts their URLs in place. What somebody kills
// of them it starts again, as whatever runs them in production does.
func start(ctx context.Context, o *options) (stop func(), err error) {
	fmt.Println("starting a private RabbitMQ and Redis")
	broker, err := servers.NewRabbitMQ(ctx, servers.RabbitMQConfig{})
	if err != nil {
		return nil, err
	}
	// Dead letters are as durable as Redis: every write is on its disk before it answers.
	keyServer, err := servers.NewRedis(ctx, servers.RedisConfig{AppendOnly: true, Args: []string{"--appendfsync", "always"}})
	if err != nil {
		return nil, errors.Join(err, broker.Close())
	}
	o.amqp, o.redis = broker.URL(), keyServer.URL()
	fmt.Printf("RabbitMQ has process %d, Redis %d\n", broker.PID(), keyServer.PID())

	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for tick := time.Tick(500 * time.Millisecond); ctx.Err() == nil; {
			select {
			case <-tick:
				_ = errors.Join(broker.Start(ctx), keyServer.Start(ctx)) // those that run are left alone
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
		_ = errors.Join(broker.Close(), keyServer.Close())
	}, nil
}
