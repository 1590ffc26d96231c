package faults

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// options are the command line's.
type options struct {
	all  bool
	out  string
	soak time.Duration
	seed uint64
}

var (
	asked  options
	shared servers.Shared
	table  report
)

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		os.Exit(childMain(job))
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's
	redis.SetLogger(quiet{})
	flag.BoolVar(&asked.all, "faults.all", false, "run all rows, not only those that take seconds")
	flag.StringVar(&asked.out, "faults.out", "", "write the table as Markdown to this `file`")
	flag.DurationVar(&asked.soak, "faults.soak", 0, "instead of the rows, run with random faults for so long")
	flag.Uint64Var(&asked.seed, "faults.seed", 0, "of the soak's faults; 0 takes one from the clock")
	flag.Parse()
	goleak.VerifyTestMain(summing{shared.Main(m)},
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

// quiet keeps go-redis from printing a line for each connection that it misses.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// summing tells the totals after the tests.
type summing struct{ tests servers.Runner }

func (s summing) Run() int {
	code := s.tests.Run()
	if !table.finish(os.Stdout, asked.out) {
		code = max(code, 1)
	}
	return code
}
