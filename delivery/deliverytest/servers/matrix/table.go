package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// result is what became of a row.
type result struct {
	row            row
	version        string
	passed, failed int
	took           time.Duration
	missing        error // why the server could not be had
	faults         []error
}

func (r *result) fail(err error) { r.faults = append(r.faults, err) }

func (r *result) verdict() string {
	switch {
	case r.missing != nil:
		return "not run"
	case r.failed > 0:
		return fmt.Sprintf("%d failed", r.failed)
	case len(r.faults) > 0:
		return "failed"
	case r.passed == 0:
		return "no test ran"
	}
	return "ok"
}

func (r *result) bad() bool { return r.missing == nil && r.verdict() != "ok" }

func (r *result) cells() []string {
	return []string{
		r.row.server.name, r.version, r.row.suite.name,
		strconv.Itoa(r.passed + r.failed), r.verdict(), fmt.Sprintf("%.0f", r.took.Seconds()),
	}
}

var columns = []string{"server", "version", "suite", "tests", "result", "seconds"}

func printTable(w io.Writer, results []result) {
	widths := []int{-11, -9, -34, 6, -13, 7}
	line := func(cells []string) {
		for i, cell := range cells {
			fmt.Fprintf(w, "%*s  ", widths[i], cell)
		}
		fmt.Fprintln(w)
	}
	line(columns)
	for i := range results {
		line(results[i].cells())
	}
}

// verdict prints the totals, and says whether everything passed.
func verdict(results []result, optional bool) error {
	var passed, failed, bad, missing int
	var took time.Duration
	var errs []error
	for i := range results {
		r := &results[i]
		passed, failed, took = passed+r.passed, failed+r.failed, took+r.took
		errs = append(errs, r.faults...)
		if r.bad() {
			bad++
		}
		if r.missing != nil {
			missing++
			if !optional || !errors.Is(r.missing, errMirror) {
				errs = append(errs, r.missing)
			}
		}
	}
	fmt.Printf("matrix: rows=%d ok=%d bad=%d not_run=%d seconds=%.0f\n",
		len(results), len(results)-bad-missing, bad, missing, took.Seconds())
	if missing > 0 {
		fmt.Printf("matrix: %d rows were NOT RUN, because their servers could not be had\n", missing)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if bad > 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%d rows are not ok", bad))
	}
	return errors.Join(errs...)
}

// marker is the line of the document after which everything is written by this
// program.
const marker = "<!-- make matrix writes what follows. -->\n"

func writeTable(path string, results []result) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, _, found := strings.Cut(string(document), marker)
	if !found {
		return fmt.Errorf("%s has no line %q", path, strings.TrimSpace(marker))
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%s%s\n%s, %d cores, %s\n\n", text, marker,
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), runtime.Version())
	fmt.Fprintf(&table, "| %s |\n| --- | --- | --- | ---: | --- | ---: |\n", strings.Join(columns, " | "))
	for i := range results {
		fmt.Fprintf(&table, "| %s |\n", strings.Join(results[i].cells(), " | "))
	}
	return os.WriteFile(path, []byte(table.String()), 0o644) //nolint:gosec // a document
}
