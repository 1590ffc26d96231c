package faults

import (
	"context"
	"flag"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// flagValues are the flags of the command line.
type flagValues struct {
	all      bool
	out      string
	soak     time.Duration
	seed     uint64
	profiles string
}

var (
	flags  flagValues
	shared servers.Shared
	table  report
)

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		os.Exit(childMain(job))
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's
	redis.SetLogger(discardLogger{})
	flag.BoolVar(&flags.all, "faults.all", false, "run all rows, not only those that take seconds")
	flag.StringVar(&flags.out, "faults.out", "", "write the table as Markdown to this `file`")
	flag.DurationVar(&flags.soak, "faults.soak", 0, "instead of the rows, run with random faults for so long")
	flag.Uint64Var(&flags.seed, "faults.seed", 0, "of the soak's faults; 0 takes one from the clock")
	flag.StringVar(&flags.profiles, "faults.profiles", "", "write the heap's profiles at the soak's two measures to this `folder`")
	flag.Parse()
	if flags.profiles != "" {
		runtime.MemProfileRate = 1024 // the default would miss what a soak looks for
	}
	goleak.VerifyTestMain(reportingRunner{shared.Main(m)},
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}

// discardLogger keeps go-redis from printing a line for each connection that fails.
type discardLogger struct{}

func (discardLogger) Printf(context.Context, string, ...any) {}

// reportingRunner prints the totals after the tests.
type reportingRunner struct{ tests servers.Runner }

func (s reportingRunner) Run() int {
	code := s.tests.Run()
	if !table.finish(os.Stdout, flags.out) {
		code = max(code, 1)
	}
	return code
}
