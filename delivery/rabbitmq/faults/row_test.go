package faults

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// row is one line of the fault matrix.
type row struct {
	number int
	fault  string
	how    string
	// promise is what is checked beside the ledger, in words.
	promise string
	// bound is how many duplicates are allowed. Where the number follows from what
	// happened, run sets rowTest.bound instead.
	bound int
	// quick says that the row takes seconds. Such rows are run by default.
	quick bool
	// postgres says that the row uses the shared PostgreSQL.
	postgres bool
	// needs returns why the machine can't run the row, or "".
	needs func() string
	run   func(*rowTest)
}

// rows are those of all sections. Each section has a file of its own, and its rows
// stand in the table in the order of their numbers.
func rows() []row {
	return slices.Concat(brokerRows(), networkRows(), clusterRows(), redisRows(), processRows(), handlerRows(),
		queueRows(), accessRows(), storeRows(), storeProcessRows(), retryRows(), deployRows())
}

func TestFaults(t *testing.T) {
	if flags.soak > 0 {
		return
	}
	for _, row := range rows() {
		if !row.quick && !flags.all {
			continue
		}
		t.Run(fmt.Sprintf("%02d %s", row.number, row.fault), row.test)
	}
}

// test runs the row, and leaves everything as it was before.
func (row row) test(t *testing.T) {
	if row.needs != nil {
		if why := row.needs(); why != "" {
			t.Log("not run:", why)
			table.add(result{row: row, bound: row.bound, notRun: why})
			return
		}
	}
	r := newRowTest(t, row)
	begin := time.Now()
	defer func() { // also when an assertion has ended the goroutine
		if r.Failed() {
			r.cancel() // ends what still waits in vain
		}
		r.cleanUp()
		r.assertNoLeaks()
		report := r.ledger.Report()
		assert.NoError(r, report.Err(r.bound)) //nolint:testifylint // the table needs the row in any case
		assert.Positive(r, report.Published, "nothing was published")
		table.add(result{
			row: row, bound: r.bound, ledger: report,
			took: time.Since(begin), failures: r.failures(), notes: r.notes,
		})
	}()
	row.run(r)
}
