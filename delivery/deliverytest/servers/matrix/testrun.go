package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// testTimeout bounds the tests of one package.
const testTimeout = 15 * time.Minute

// test runs the tests of a package, and counts them in r. What failed is printed.
func (m *matrix) test(ctx context.Context, pkg string, suite suite, env []string, r *result) error {
	binary, err := m.binary(ctx, pkg)
	if err != nil {
		return err
	}
	tests := exec.CommandContext(ctx, binary, "-test.v=test2json", "-test.run="+m.run, "-test.skip="+suite.skip,
		"-test.timeout="+testTimeout.String(), "-test.paniconexit0")
	tests.Dir, tests.Env = pkg, env
	tests.WaitDelay = time.Second
	convert := exec.CommandContext(ctx, "go", "tool", "test2json", "-t")
	convert.Stderr = os.Stderr
	if convert.Stdin, err = tests.StdoutPipe(); err != nil {
		return err
	}
	tests.Stderr = tests.Stdout
	events, err := convert.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tests.Start(); err != nil {
		return err
	}
	if err := convert.Start(); err != nil {
		return errors.Join(err, tests.Process.Kill(), tests.Wait())
	}
	counted := r.count(events)
	failed := errors.Join(convert.Wait(), tests.Wait())
	switch {
	case ctx.Err() != nil:
		failed = errInterrupted
	case failed != nil:
		failed = fmt.Errorf("%s: %w", pkg, failed)
	}
	return errors.Join(counted, failed)
}

// event is a line of test2json's output.
type event struct {
	Action, Test, Output string
}

// count reads the events of a run of tests to their end. It prints what a test that
// failed has printed, and what belongs to no test if anything failed.
func (r *result) count(events io.Reader) error {
	outputs := map[string]*bytes.Buffer{"": {}}
	failed := false
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			_, _ = io.Copy(io.Discard, events) // the tests would wait for a reader
			return err
		}
		output := outputs[e.Test]
		if output == nil {
			output = new(bytes.Buffer)
			outputs[e.Test] = output
		}
		output.WriteString(e.Output)
		switch {
		case e.Action == "fail":
			failed = true
			if e.Test != "" {
				r.failed++
				fmt.Print(output)
			}
		case e.Test == "":
			continue
		case e.Action == "pass":
			r.passed++
		case e.Action != "skip":
			continue
		}
		if e.Test != "" {
			delete(outputs, e.Test)
		}
	}
	if failed {
		fmt.Print(outputs[""])
	}
	return nil
}
