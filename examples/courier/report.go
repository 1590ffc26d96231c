package courier

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

// progress shows how far the job is: a bar on a terminal, and a line a second
// elsewhere. A nil progress shows nothing.
type progress struct {
	output io.Writer
	total  int
	bar    *progressbar.ProgressBar
	begin  time.Time
	lines  int
}

func newProgress(output io.Writer, total int) *progress {
	p := &progress{output: output, total: total, begin: time.Now()}
	if file, ok := output.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(output),
			progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false),
		)
	}
	return p
}

func (p *progress) update(delivered, dead int, figures metrics.Snapshot, state breaker.State) {
	if p == nil {
		return
	}
	text := fmt.Sprintf("delivered %d, dead letters %d, retried %d, breaker %s",
		delivered, dead, figures.Processed[metrics.OutcomeRetried], state)
	if p.bar != nil {
		p.bar.Describe(text)
		_ = p.bar.Set(min(delivered+dead, p.total))
		return
	}
	if passed := time.Since(p.begin); int(passed/time.Second) > p.lines {
		p.lines = int(passed / time.Second)
		fmt.Fprintf(p.output, "%3d s  %d of %d: %s\n", p.lines, delivered+dead, p.total, text)
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.output)
	}
}

// showTable shows what the first part of the job came to.
func showTable(output io.Writer, figures metrics.Snapshot, published, delivered int, dead []dlq.Entry) {
	table := tabwriter.NewWriter(output, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	milliseconds := func(seconds float64) float64 { return seconds * 1000 }
	row("published", "%d", published)
	row("delivered", "%d", delivered)
	row("retried", "%d", figures.Processed[metrics.OutcomeRetried])
	row("duplicates suppressed", "%d", figures.Processed[metrics.OutcomeDuplicate])
	row("dead-lettered", "%d", len(dead))
	reasons := map[delivery.Reason]int{}
	for _, entry := range dead {
		reasons[entry.Reason]++
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		row("  "+string(reason), "%d", reasons[reason])
	}
	for _, name := range slices.Sorted(maps.Keys(figures.Breakers)) {
		changes := figures.Breakers[name].Transitions
		row("breaker transitions", "%d to open, %d to half-open, %d to closed",
			changes[metrics.StateOpen], changes[metrics.StateHalfOpen], changes[metrics.StateClosed])
	}
	row("handler p50 / p95 / p99", "%.1f / %.1f / %.1f ms", milliseconds(figures.HandlerSeconds.P50),
		milliseconds(figures.HandlerSeconds.P95), milliseconds(figures.HandlerSeconds.P99))
	_ = table.Flush()
}
