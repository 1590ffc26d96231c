// Command quickstart runs the whole pipeline in one process, with no server:
// 2,000 messages through a provider that fails in every usual way. It ends with
// status 1 if its ledger shows a message lost or delivered twice.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/examples/courier"
	"github.com/esh3artech/barid/idempotency"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run() error {
	messages := flag.Int("messages", 2000, "how many messages to publish")
	verbose := flag.Bool("v", false, "log what the pipeline does, to standard error")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var logger *slog.Logger
	if *verbose {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	transport := memory.New(memory.Config{Name: "quickstart"})
	defer func() { _ = transport.Close() }()

	return courier.Run(ctx, courier.Config{
		Transport:   transport,
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
		Messages:    *messages,
		Logger:      logger,
	})
}
