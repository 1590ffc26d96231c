// Command matrix runs the tests of the adapters on servers of several versions, and
// tells in a table which passed.
//
//	go run ./delivery/deliverytest/servers/matrix                     # all rows
//	go run ./delivery/deliverytest/servers/matrix -rows 'RabbitMQ 4'  # those that match
//	go run ./delivery/deliverytest/servers/matrix -rows 'RabbitMQ 4.3' -run TestFaults
//
// It needs Linux, root, and a Debian whose own servers the tests can start. These
// servers are the oldest. The newer ones are packages of later Debian releases, from
// the mirror that the machine uses itself. They are unpacked into folders below
// -cache, one for each set of versions, and nothing of them is installed.
//
// The servers and the tests run in namespaces of their own: when the command ends,
// however it ends, the kernel ends its processes and undoes its mounts.
//
// Exit status 1 says that a test failed or that something could not be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	switch err := run(); {
	case err == nil:
		return
	case errors.Is(err, errAllowed):
		fmt.Println("matrix: NOT RUN,", err)
		return
	case !errors.Is(err, errTold):
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
	os.Exit(1)
}

var (
	// errTold says that the process in the sandbox has failed, and has told why.
	errTold = errors.New("failed")
	// errSandbox says that this machine can't make the sandbox, and errAllowed that it
	// need not.
	errSandbox     = errors.New("this machine can't run it")
	errAllowed     = errors.New("as -optional allows")
	errInterrupted = errors.New("interrupted")
)

type options struct {
	rows          *regexp.Regexp
	run           string
	output, cache string
	optional      bool
}

func parseOptions() (options, error) {
	var o options
	rows := flag.String("rows", "", "run only the rows that match this `pattern`, for instance 'RabbitMQ 4|faults'")
	flag.StringVar(&o.run, "run", "", "run only the tests that match this `pattern`, as go test -run")
	flag.StringVar(&o.output, "o", "", "write the table as Markdown to the end of this `file`, if all rows and tests were asked for")
	flag.StringVar(&o.cache, "cache", ".tools/servers", "`folder` for the servers of other releases")
	flag.BoolVar(&o.optional, "optional", false, "succeed without the rows whose servers can't be fetched, and without any on a machine that can't run them")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	var err error
	o.rows, err = regexp.Compile("(?i)" + *rows)
	return o, err
}

func run() error {
	o, err := parseOptions()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !inSandbox() {
		var err error
		if missing := requirements(); len(missing) > 0 {
			err = fmt.Errorf("%w: it lacks %s", errSandbox, strings.Join(missing, ", "))
		} else {
			err = runInSandbox(ctx)
		}
		if o.optional && errors.Is(err, errSandbox) {
			err = fmt.Errorf("%w: %w", errAllowed, err)
		}
		return err
	}
	m, err := newMatrix(ctx, o)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	results, err := m.runAll(ctx)
	printTable(os.Stdout, results)
	if o.output != "" && err == nil && o.run == "" && len(results) == len(allRows) {
		err = writeTable(o.output, results)
	}
	return errors.Join(err, verdict(results, o.optional))
}
