// Command quickstart runs the whole pipeline in one process, with no server:
// 2,000 messages, kept in a SQLite file, through a provider that fails in every
// usual way. In the middle the process kills itself, as kill -9 does, and is
// started again on the same file. It ends with status 1 if the provider's ledger
// shows a message lost, or delivered twice without a reason: the kill, or an
// answer of the provider that came too late.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	_ "modernc.org/sqlite" // the driver

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/examples/courier"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// options are the command line's. The process that is killed and its successor
// are this program once more, with -provider and what follows it set.
type options struct {
	messages  int
	verbose   bool
	provider  string
	folder    string
	name      string
	killAfter int
}

func run() error {
	var o options
	flag.IntVar(&o.messages, "messages", 2000, "how many messages to publish")
	flag.BoolVar(&o.verbose, "v", false, "log what the pipeline does, to standard error")
	flag.StringVar(&o.folder, "folder", "", "keep the SQLite file and the ledgers in this new `folder` (default: a temporary one)")
	flag.StringVar(&o.provider, "provider", "", "run the host alone, with the provider at this `URL`")
	flag.StringVar(&o.name, "run", "", "what the IDs of the host's messages begin with")
	flag.IntVar(&o.killAfter, "kill-after", 0, "have the host kill itself after so many deliveries")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.provider == "" {
		return supervise(ctx, o)
	}
	return host(ctx, o)
}

// host is what an application does: it opens a file, wires the pieces together,
// and runs.
func host(ctx context.Context, o options) (err error) {
	var logger *slog.Logger
	if o.verbose {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(o.folder, "barid.db")))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	transport := memory.New(memory.Config{Name: "quickstart"})
	defer func() { err = errors.Join(err, transport.Close()) }()

	return courier.Run(ctx, courier.Config{
		Transport:   transport,
		Store:       store,
		Idempotency: store.Keys(),
		DeadLetters: store.DeadLetters(),
		Folder:      o.folder,
		URL:         o.provider,
		Run:         o.name,
		KillAfter:   o.killAfter,
		Messages:    o.messages,
		Logger:      logger,
	})
}

// supervise is the world around the host: it runs the provider, the host until
// that kills itself, and the host again.
func supervise(ctx context.Context, o options) (err error) {
	if o.folder == "" {
		if o.folder, err = os.MkdirTemp("", "barid-quickstart-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.folder)) }()
	} else if err := os.Mkdir(o.folder, 0o700); err != nil {
		return err
	}
	ledger := courier.OpenLedger(filepath.Join(o.folder, courier.Effects))
	provider, err := courier.StartProvider(ledger, o.messages/3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Close(), ledger.Close()) }()
	o.provider, o.name = provider.URL, delivery.NewID()

	fmt.Printf("the host keeps its messages in %s\n", filepath.Join(o.folder, "barid.db"))
	first := start(ctx, o, o.messages/2)
	var exit *exec.ExitError
	switch err := first.Run(); {
	case err == nil:
		return errors.New("the host was to kill itself, and did not")
	case !errors.As(err, &exit) || exit.Exited():
		return err
	}
	provider.Quiesce()
	fmt.Printf("\nthe host killed itself after %d deliveries (%s); starting it again on the same file\n\n", o.messages/2, exit)
	return start(ctx, o, 0).Run()
}

// start is the host in a process of its own.
func start(ctx context.Context, o options, killAfter int) *exec.Cmd {
	command := exec.CommandContext(ctx, os.Args[0], //nolint:gosec // this program itself
		"-provider", o.provider, "-folder", o.folder, "-run", o.name,
		"-kill-after", strconv.Itoa(killAfter), "-messages", strconv.Itoa(o.messages), "-v="+strconv.FormatBool(o.verbose))
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	return command
}
