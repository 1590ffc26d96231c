package faults

import (
	"context"
	"log/slog"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// scheduled makes n messages that are due later, so that retry workers send them.
func (p *pipeline) scheduled(name string, n int, in time.Duration) []delivery.Message {
	batch := p.messages(name, n)
	for i := range batch {
		batch[i].NotBefore = time.Now().Add(in)
	}
	return batch
}

// retryWorkerLease is the lease of the rows' retry workers.
const retryWorkerLease = 2 * time.Second

func retryWorkerConfig(logger *slog.Logger) delivery.RetryWorkerConfig {
	return delivery.RetryWorkerConfig{
		ScanInterval: 500 * time.Millisecond, BatchSize: 50, Lease: retryWorkerLease,
		Retry: retry.Exponential{Base: time.Second, MaxRetries: 3}, Logger: logger,
	}
}

// runRetryWorker runs a RetryWorker over the store until the row's end.
func (p *pipeline) runRetryWorker(store delivery.Store) {
	p.Helper()
	config := retryWorkerConfig(p.log.logger())
	config.DeadLetters, config.Metrics = p.deadLetterStore, p.metrics
	worker, err := delivery.NewRetryWorker(store, p.transport, config)
	require.NoError(p, err)
	ctx, cancel := context.WithCancel(context.Background())
	worked := make(chan error, 1)
	go func() { worked <- worker.Run(ctx) }()
	p.atEnd(func() {
		cancel()
		p.mustEnd("RetryWorker.Run", func() error { return <-worked })
	})
}
