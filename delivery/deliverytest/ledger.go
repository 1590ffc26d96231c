package deliverytest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Ledger keeps the books of a test that disturbs a pipeline: what was published
// with success, what had its effect, what became a dead letter. At the end its
// Report tells what was lost and what came twice. The zero value is empty and
// ready. Its methods may be called by any number of goroutines at once.
type Ledger struct {
	mu       sync.Mutex
	accounts map[string]account
}

type account struct{ sent, effects, deadLetters int }

// Sent notes that the message was published with success: it must not be lost.
// Noting one again changes nothing, because publishing again with the same ID
// is allowed.
func (l *Ledger) Sent(id string) { l.note(id, func(a *account) { a.sent = 1 }) }

// Effect notes that the message was handled once.
func (l *Ledger) Effect(id string) { l.note(id, func(a *account) { a.effects++ }) }

// DeadLetter notes that the message is among the dead letters.
func (l *Ledger) DeadLetter(id string) { l.note(id, func(a *account) { a.deadLetters = 1 }) }

func (l *Ledger) note(id string, change func(*account)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts == nil {
		l.accounts = map[string]account{}
	}
	account := l.accounts[id]
	change(&account)
	l.accounts[id] = account
}

// Report settles the books as they are now.
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

// Report is what a Ledger says. What is still queued counts as lost: drain
// first.
type Report struct {
	// Published messages, each counted once.
	Published int
	// Effects, each counted: a message handled twice has two.
	Effects int
	// DeadLetters, each message counted once.
	DeadLetters int
	// Duplicates are the effects beyond each message's first.
	Duplicates int
	// Unconfirmed messages had an effect or became a dead letter, though
	// publishing them was not noted as a success: its outcome was unknown, or it
	// comes from elsewhere.
	Unconfirmed int
	// Lost are the published messages with neither an effect nor a dead letter,
	// sorted.
	Lost []string
}

// Err is nil when nothing was lost and there are at most so many duplicates.
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

// allDuplicates makes Report.Err look at losses alone.
const allDuplicates = math.MaxInt

// String is one line.
func (r Report) String() string {
	return fmt.Sprintf("published %d, effects %d, dead letters %d, lost %d, duplicates %d, unconfirmed %d",
		r.Published, r.Effects, r.DeadLetters, len(r.Lost), r.Duplicates, r.Unconfirmed)
}
