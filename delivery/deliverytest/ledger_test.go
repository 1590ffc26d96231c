package deliverytest_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery/deliverytest"
)

func ExampleLedger() {
	var ledger deliverytest.Ledger
	for _, id := range []string{"1", "2", "3", "4"} {
		ledger.Sent(id) // Publish returned nil
	}
	ledger.Effect("1")
	ledger.Effect("2")
	ledger.Effect("2") // again after a crash
	ledger.DeadLetter("3")
	report := ledger.Report()
	fmt.Println(report)
	fmt.Println(report.Err(1))
	// Output:
	// published 4, effects 3, dead letters 1, lost 1, duplicates 1, unconfirmed 0
	// deliverytest: lost 1 of 4 messages, first ["4"]
}

func TestLedger(t *testing.T) {
	var empty deliverytest.Ledger
	assert.Equal(t, deliverytest.Report{}, empty.Report())
	require.NoError(t, empty.Report().Err(0))

	var ledger deliverytest.Ledger
	ledger.Effect("unknown outcome")
	ledger.Sent("sent twice")
	ledger.Sent("sent twice")
	ledger.Effect("sent twice")
	ledger.Effect("sent twice")
	assert.Equal(t, deliverytest.Report{Published: 1, Effects: 3, Duplicates: 1, Unconfirmed: 1}, ledger.Report())
	require.NoError(t, ledger.Report().Err(1))
	require.EqualError(t, ledger.Report().Err(0), "deliverytest: 1 duplicates, at most 0 are allowed")
}

func TestLedgerConcurrently(t *testing.T) {
	var ledger deliverytest.Ledger
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 100 {
				ledger.Sent(fmt.Sprint(n))
				ledger.Effect(fmt.Sprint(n))
				if i == 0 {
					ledger.DeadLetter(fmt.Sprint(n))
				}
				ledger.Report()
			}
		})
	}
	all.Wait()
	assert.Equal(t, deliverytest.Report{Published: 100, Effects: 800, DeadLetters: 100, Duplicates: 700}, ledger.Report())
}

func TestLedgerBalances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ledger deliverytest.Ledger
		id := rapid.StringMatching("[abc]")
		ids := rapid.SliceOf(id)
		sent, effects, letters := ids.Draw(t, "sent"), ids.Draw(t, "effects"), ids.Draw(t, "letters")
		done := map[string]bool{}
		for _, id := range sent {
			ledger.Sent(id)
		}
		for _, id := range effects {
			ledger.Effect(id)
			done[id] = true
		}
		distinct := len(done)
		for _, id := range letters {
			ledger.DeadLetter(id)
			done[id] = true
		}
		lost := map[string]bool{}
		for _, id := range sent {
			if !done[id] {
				lost[id] = true
			}
		}
		report := ledger.Report()
		assert.Len(t, report.Lost, len(lost))
		assert.Equal(t, len(effects), report.Effects)
		assert.Equal(t, len(effects)-distinct, report.Duplicates)
	})
}
