// Command compare measures barid against what one would use otherwise: the bare
// AMQP client, Watermill, and River. Every figure that counts is a ratio of two sides
// that took turns on the same servers in the same run, because machines differ
// and drift.
//
//	go run ./examples/compare                  # all rows, 5 pairs, about 15 minutes
//	go run ./examples/compare -rows consume-raw,publish-raw -pairs 1 -messages 5000 -o ""
//
// It starts the servers that the rows need and ends them. Each side of each
// pair runs in a process of its own, on fresh queues, after a warm-up of a tenth
// of its messages; the side that begins changes from pair to pair. A side that
// lost a message, handled one twice or left one unacked fails the whole run.
//
// For each row it prints one line,
//
//	ratio <name> <ours> <theirs> <unit> <ratio> target <number> <ok|short>
//
// where ours and theirs are medians and the ratio is the median of the pairs'
// ratios. The same goes as a table, with machine, versions and settings, into
// the file that -o names. What it is doing meanwhile is told on standard error.
//
// One side alone, for a profile:
//
//	go run ./examples/compare -rows consume-raw -side ours -messages 200000 -cpuprofile cpu.prof
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

type options struct {
	rows                   string
	pairs, messages        int
	output, side           string
	where                  addresses
	cpuProfile, memProfile string
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.rows, "rows", "", "rows to measure, separated by commas; all when empty")
	flag.IntVar(&o.pairs, "pairs", 5, "how many pairs to measure for each row")
	flag.IntVar(&o.messages, "messages", 0, "messages for each side; 0 leaves it to the row")
	flag.StringVar(&o.output, "o", "examples/compare/RESULTS.md", "file for the table; none when empty")
	flag.StringVar(&o.side, "side", "", "run only this side of one row, once: ours or theirs")
	flag.StringVar(&o.where.amqp, "amqp", "", "URL of RabbitMQ; a private one is started when empty")
	flag.StringVar(&o.where.redis, "redis", "", "URL of Redis; a private one is started when empty")
	flag.StringVar(&o.where.postgres, "postgres", "", "URL of PostgreSQL; a private one is started when empty")
	flag.IntVar(&o.where.stored, "stored", 1_000_000, "records in the fuller store of scan-scale")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "with -side, file for a profile of its processor time")
	flag.StringVar(&o.memProfile, "memprofile", "", "with -side, file for a profile of its allocations")
	flag.Parse()

	selected, err := selectRows(o.rows)
	switch {
	case err != nil:
		return err
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.pairs < 1:
		return fmt.Errorf("-pairs is %d, want at least 1", o.pairs)
	case o.messages < 0:
		return fmt.Errorf("-messages is %d, want 0 or more", o.messages)
	case o.where.stored < storedFew || o.where.stored%1000 != 0:
		return fmt.Errorf("-stored is %d, want %d or more, in thousands", o.where.stored, storedFew)
	case o.side != "" && o.side != sideOurs && o.side != sideTheirs:
		return fmt.Errorf("-side is %q, want %s or %s", o.side, sideOurs, sideTheirs)
	case o.side != "" && len(selected) != 1:
		return errors.New("-side needs exactly one row, name it with -rows")
	case o.side == "" && (o.cpuProfile != "" || o.memProfile != ""):
		return errors.New("-cpuprofile and -memprofile need -side: each side is a process of its own")
	}
	if o.output != "" && o.side == "" {
		if _, err := os.Stat(filepath.Dir(o.output)); err != nil {
			return fmt.Errorf("-o: %w", err) // rather now than when all is measured
		}
	}
	stopServers, err := startServers(ctx, &o.where, selected)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopServers(err != nil && ctx.Err() == nil)) }()
	if o.side != "" {
		return runSide(ctx, selected[0], o)
	}
	return compareAll(ctx, selected, o)
}

// compareAll measures every row and reports.
func compareAll(ctx context.Context, selected []row, o options) error {
	report, err := newReport(ctx, o.where, o.pairs)
	if err != nil {
		return err
	}
	log := newProgress(os.Stderr, 2*o.pairs*len(selected))
	for _, r := range selected {
		if o.messages > 0 {
			r.messages = o.messages
		}
		found, err := compare(ctx, r, o.where, o.pairs, log)
		if err != nil {
			return err
		}
		fmt.Println(found)
		report.add(found)
	}
	if o.output == "" {
		return nil
	}
	return os.WriteFile(o.output, []byte(report.markdown()), 0o644) //nolint:gosec // meant to be read
}

// privateServer is any of the private servers.
type privateServer interface {
	URL() string
	LogTail() string
	Close() error
}

// startServers starts what the rows use and nobody has named, and notes where it
// is. When something failed, stop shows what the servers said last.
func startServers(ctx context.Context, where *addresses, selected []row) (stop func(failed bool) error, err error) {
	var all []privateServer
	stop = func(failed bool) error {
		var errs []error
		for _, s := range slices.Backward(all) {
			if failed {
				fmt.Fprintf(os.Stderr, "the log of %s ends with:\n%s", s.URL(), s.LogTail())
			}
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	}
	started := func(url *string, kind server, start func() (privateServer, error)) {
		if err != nil || *url != "" || !using(selected, kind) {
			return
		}
		fmt.Fprintln(os.Stderr, "starting a private", kind)
		s, fault := start()
		if err = fault; err == nil {
			*url = s.URL()
			all = append(all, s)
		}
	}
	started(&where.amqp, rabbitMQ, func() (privateServer, error) {
		// As many schedulers as cores is RabbitMQ's own default.
		return servers.NewRabbitMQ(ctx, servers.RabbitMQConfig{Schedulers: runtime.NumCPU()})
	})
	started(&where.redis, redisServer, func() (privateServer, error) {
		return servers.NewRedis(ctx, servers.RedisConfig{})
	})
	started(&where.postgres, postgreSQL, func() (privateServer, error) {
		var config servers.PostgresConfig
		for _, setting := range postgresSettings() {
			config.Args = append(config.Args, "-c", setting)
		}
		return servers.NewPostgres(ctx, config)
	})
	if err != nil {
		return nil, errors.Join(err, stop(false))
	}
	return stop, nil
}

func selectRows(names string) ([]row, error) {
	all := rows()
	if names == "" {
		return all, nil
	}
	var selected []row
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-rows: there is no row %q", name)
		}
		selected = append(selected, all[i])
	}
	return selected, nil
}
