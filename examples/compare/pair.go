package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The names of the sides.
const (
	sideOurs   = "ours"
	sideTheirs = "theirs"
)

// sideTimeout bounds one side of one pair.
const sideTimeout = 5 * time.Minute

// finding is what a row came to. Rates are by pair.
type finding struct {
	row          row
	ours, theirs []float64
}

// ratio is the median of the pairs' ratios: what made a whole pair slow does not
// count.
func (f finding) ratio() float64 { return median(f.ratios()) }

func (f finding) ratios() []float64 {
	ratios := make([]float64, len(f.ours))
	for i := range ratios {
		ratios[i] = f.ours[i] / f.theirs[i]
	}
	return ratios
}

func (f finding) verdict() string {
	if f.ratio() >= f.row.target {
		return "ok"
	}
	return "short"
}

// String is the row's one line.
func (f finding) String() string {
	return fmt.Sprintf("ratio %s %.0f %.0f %s %.2f target %s %s", f.row.name, median(f.ours), median(f.theirs),
		f.row.unit, f.ratio(), number(f.row.target), f.verdict())
}

func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// compare measures a row.
func compare(ctx context.Context, r row, where addresses, pairs int, log *progress) (finding, error) {
	f := finding{row: r}
	for pair := range pairs {
		order := []string{sideOurs, sideTheirs}
		if pair%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			log.begin(fmt.Sprintf("%s, pair %d of %d, %s", r.name, pair+1, pairs, name))
			rate, err := measure(ctx, r, where, name)
			if err != nil {
				return f, fmt.Errorf("%s, %s: %w", r.name, name, err)
			}
			log.end(rate, r.unit)
			if name == sideOurs {
				f.ours = append(f.ours, rate)
			} else {
				f.theirs = append(f.theirs, rate)
			}
		}
	}
	return f, nil
}

// outcome is what a side's process prints.
type outcome struct {
	Rate float64 `json:"rate"` // per second
}

// measure runs a side in a process of its own: what one leaves behind, be it
// garbage, goroutines or connections, is not the next one's to carry.
func measure(ctx context.Context, r row, where addresses, name string) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, self, "-rows", r.name, "-side", name, "-messages", strconv.Itoa(r.messages),
		"-amqp", where.amqp, "-redis", where.redis, "-postgres", where.postgres, "-stored", strconv.Itoa(where.stored))
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	command.Stderr = os.Stderr
	printed, err := command.Output()
	if err != nil {
		return 0, errors.Join(ctx.Err(), err)
	}
	var found outcome
	if err := json.NewDecoder(bytes.NewReader(printed)).Decode(&found); err != nil {
		return 0, err
	}
	if found.Rate <= 0 {
		return 0, fmt.Errorf("a rate of %v", found.Rate)
	}
	return found.Rate, nil
}

// runSide is what that process does.
func runSide(ctx context.Context, r row, o options) error {
	work := r.ours
	if o.side == sideTheirs {
		work = r.theirs
	}
	n := r.messages
	if o.messages > 0 {
		n = o.messages
	}
	rate, err := work.rate(ctx, o.where, n, func() (stop func() error, err error) { return profile(o) })
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(outcome{Rate: rate})
}

// rate warms up and measures; begin is called in between.
func (s side) rate(ctx context.Context, where addresses, n int, begin func() (func() error, error)) (float64, error) {
	if _, err := s(ctx, where, max(n/10, 2)); err != nil {
		return 0, fmt.Errorf("warming up: %w", err)
	}
	runtime.GC()
	stop, err := begin()
	if err != nil {
		return 0, err
	}
	took, err := s(ctx, where, n)
	if err = errors.Join(err, stop()); err != nil {
		return 0, err
	}
	return float64(n) / took.Seconds(), nil
}
