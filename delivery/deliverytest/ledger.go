package deliverytest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Ledger keeps account of the messages in a test that disturbs a pipeline:
// which were published with success, which were handled, and which became dead
// letters. At the end its Report says which were lost, and how many were
// handled twice. The zero value is empty and ready to use. Its methods may be
// called by any number of goroutines at once.
type Ledger struct {
	mu       sync.Mutex
	accounts map[string]account
}

type account struct{ sent, effects, deadLetters int }

// Sent records that the message was published with success, so that it must not
// be lost. Recording it again changes nothing, because a publisher may send the
// same ID again.
func (l *Ledger) Sent(id string) { l.record(id, func(a *account) { a.sent = 1 }) }

// Effect records that the message was handled once.
func (l *Ledger) Effect(id string) { l.record(id, func(a *account) { a.effects++ }) }

// DeadLetter records that the message is among the dead letters.
func (l *Ledger) DeadLetter(id string) { l.record(id, func(a *account) { a.deadLetters = 1 }) }

func (l *Ledger) record(id string, change func(*account)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts == nil {
		l.accounts = map[string]account{}
	}
	account := l.accounts[id]
	change(&account)
	l.accounts[id] = account
}

// Report is the account as it is now.
func (l *Ledger) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	var report Report
	for id, account := range l.accounts {
		report.Published += account.sent
		report.Effects += account.effects
		report.DeadLetters += account.deadLetters
		report.Duplicates += max(0, account.effects-1)
		switch {
		case account.sent == 0:
			report.Unconfirmed++
		case account.effects+account.deadLetters == 0:
			report.Lost = append(report.Lost, id)
		}
	}
	slices.Sort(report.Lost)
	return report
}

// Report is what a Ledger has recorded. A message that is still queued counts
// as lost, so drain the queues first.
type Report struct {
	// Published is how many messages were published with success.
	Published int
	// Effects is how often messages were handled: one that was handled twice
	// counts twice.
	Effects int
	// DeadLetters is how many messages became dead letters.
	DeadLetters int
	// Duplicates is how many effects came after a message's first.
	Duplicates int
	// Unconfirmed is how many messages were handled or became dead letters
	// although Sent did not record them: the outcome of publishing was unknown, or
	// somebody else published them.
	Unconfirmed int
	// Lost are the IDs of the published messages that were neither handled nor
	// became dead letters, in order.
	Lost []string
}

// Err is nil when no message was lost and there are at most maxDuplicates
// duplicates.
func (r Report) Err(maxDuplicates int) error {
	var errs []error
	if len(r.Lost) > 0 {
		shown := r.Lost[:min(len(r.Lost), 5)]
		errs = append(errs, fmt.Errorf("deliverytest: lost %d of %d messages, first %q", len(r.Lost), r.Published, shown))
	}
	if r.Duplicates > maxDuplicates {
		errs = append(errs, fmt.Errorf("deliverytest: %d duplicates, at most %d are allowed", r.Duplicates, maxDuplicates))
	}
	return errors.Join(errs...)
}

// allDuplicates makes Report.Err look for losses alone.
const allDuplicates = math.MaxInt

// String is the report in one line.
func (r Report) String() string {
	return fmt.Sprintf("published %d, effects %d, dead letters %d, lost %d, duplicates %d, unconfirmed %d",
		r.Published, r.Effects, r.DeadLetters, len(r.Lost), r.Duplicates, r.Unconfirmed)
}
