package faults

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/esh3artech/barid/delivery/deliverytest"
)

// result is the result of a row.
type result struct {
	row      row
	bound    int
	ledger   deliverytest.Report
	took     time.Duration
	failures []string
	notes    []string
	notRun   string
}

func (r *result) verdict() string {
	switch {
	case r.notRun != "":
		return "not run: " + r.notRun
	case len(r.failures) > 0:
		first, _, _ := strings.Cut(r.failures[0], "\n")
		return "BAD: " + first
	}
	return "ok"
}

func (r *result) cells() []string {
	cells := []string{fmt.Sprintf("%d %s", r.row.number, r.row.fault)}
	if r.notRun != "" {
		return append(cells, "-", "-", "-", "-", "-", fmt.Sprint(r.bound), "-", r.verdict())
	}
	return append(cells,
		fmt.Sprint(r.ledger.Published), fmt.Sprint(r.ledger.Effects), fmt.Sprint(r.ledger.DeadLetters),
		fmt.Sprint(len(r.ledger.Lost)), fmt.Sprint(r.ledger.Duplicates), fmt.Sprint(r.bound),
		fmt.Sprintf("%.1f", r.took.Seconds()), r.verdict())
}

// report is the table of all rows that were asked for. It prints each when it
// is done.
type report struct {
	mu      sync.Mutex
	results []result
}

var columns = []string{"fault", "published", "effects", "dead letters", "lost", "duplicates", "bound", "seconds", "verdict"}

func (p *report) add(r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.results) == 0 {
		printLine(os.Stdout, columns)
	}
	p.results = append(p.results, r)
	printLine(os.Stdout, r.cells())
}

// printLine aligns text on the left and numbers on the right.
func printLine(w io.Writer, cells []string) {
	widths := []int{-46, 9, 8, 12, 5, 10, 6, 8}
	var line strings.Builder
	for i, cell := range cells {
		if i < len(widths) {
			fmt.Fprintf(&line, "%*s  ", widths[i], cell)
		} else {
			line.WriteString(cell)
		}
	}
	fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
}

// finish prints the totals and writes the Markdown, and says whether every row passed.
func (p *report) finish(w io.Writer, path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.results) == 0 {
		return true
	}
	slices.SortStableFunc(p.results, func(a, b result) int { return a.row.number - b.row.number })
	var ok, bad, notRun, lost int
	for i := range p.results {
		r := &p.results[i]
		lost += len(r.ledger.Lost)
		switch {
		case r.notRun != "":
			notRun++
		case len(r.failures) > 0:
			bad++
		default:
			ok++
		}
	}
	totals := fmt.Sprintf("faults: rows=%d ok=%d bad=%d not_run=%d lost=%d", len(p.results), ok, bad, notRun, lost)
	if path != "" {
		if err := p.write(path, totals); err != nil {
			fmt.Fprintln(w, err)
			bad++
		}
	}
	fmt.Fprintln(w, totals)
	return bad == 0 && lost == 0
}

func (p *report) write(path, totals string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "# Faults\n\nWhat was broken under a running pipeline, and what became of the messages. "+
		"Published counts what was published with success, lost what of that had neither an effect nor became a dead letter, "+
		"duplicates the effects beyond each message's first, bound how many of them the row allows.\n\n")
	fmt.Fprintf(&text, "%s  \n%s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine())
	header := slices.Concat(columns[:8], []string{"how", "also checked", "verdict"})
	line := func(cells []string) {
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
		}
		fmt.Fprintf(&text, "| %s |\n", strings.Join(cells, " | "))
	}
	line(slices.Clone(header))
	fmt.Fprintf(&text, "| --- |%s --- | --- | --- |\n", strings.Repeat(" ---: |", 7))
	for i := range p.results {
		r := &p.results[i]
		cells := r.cells()
		checked := strings.Join(append([]string{r.row.promise}, r.notes...), "; ")
		line(slices.Concat(cells[:8], []string{r.row.how, checked, cells[8]}))
	}
	fmt.Fprintf(&text, "\n`%s`\n", totals)
	return os.WriteFile(path, []byte(text.String()), 0o644) //nolint:gosec // a document
}

// machine is what the figures were measured on.
func machine() string {
	parts := []string{fmt.Sprintf("%d cores (%s)", runtime.NumCPU(), processor())}
	for _, command := range [][]string{
		{"uname", "-sr"},
		{"redis-server", "--version"},
		{"postgres", "--version"},
		{"dpkg-query", "-W", "-f", "rabbitmq-server ${Version}", "rabbitmq-server"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).Output(); err == nil {
			text, _, _ := strings.Cut(strings.TrimSpace(string(out)), " sha=")
			parts = append(parts, text)
		}
	}
	parts = append(parts, runtime.Version(), "amqp091-go, go-redis, pgx, modernc.org/sqlite and toxiproxy as in go.mod")
	return strings.Join(parts, ", ")
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
