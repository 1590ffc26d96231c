package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// row is one line of the fault matrix.
type row struct {
	number int
	fault  string
	how    string
	// promise is what is checked beside the ledger.
	promise string
	// bound is how many duplicates are allowed; run may set rig.bound instead,
	// where the number follows from what happened.
	bound int
	// quick rows take seconds and are run by default.
	quick bool
	// postgres: the row uses the shared PostgreSQL.
	postgres bool
	// needs tells why the machine can't do it, or nothing.
	needs func() string
	run   func(*rig)
}

func rows() []row {
	var all []row
	for _, some := range [][]row{brokerRows(), linkRows(), clusterRows(), redisRows(), crashRows(), handlerRows(), queueRows(), storeRows(), storeCrashRows()} {
		all = append(all, some...)
	}
	return all
}

func TestFaults(t *testing.T) {
	if asked.soak > 0 {
		return
	}
	for _, row := range rows() {
		if !row.quick && !asked.all {
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
	r := newRig(t, row)
	begin := time.Now()
	defer func() { // also when an assertion has ended the goroutine
		if r.Failed() {
			r.giveUp() // what goes on in vain ends now
		}
		r.cleanUp()
		r.noLeaks()
		settled := r.ledger.Report()
		assert.NoError(r, settled.Err(r.bound)) //nolint:testifylint // the table needs the row, whatever it is like
		assert.Positive(r, settled.Published, "nothing was published")
		table.add(result{
			row: row, bound: r.bound, books: settled,
			took: time.Since(begin), faults: r.faults(), notes: r.notes,
		})
	}()
	row.run(r)
}
