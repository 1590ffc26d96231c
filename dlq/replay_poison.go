package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/esh3artech/barid/delivery"
)

// maxTries is how often an entry is tried that fails while others are sent.
const maxTries = 5

// maxRemembered bounds how many entries that failed are remembered, beside
// those of a batch.
const maxRemembered = MaxBatchSize

// poisonCheck tells entries that can't be sent (poison messages) from a
// transport that is down, where the error does not.
type poisonCheck struct {
	// tries counts how often an entry failed while others were sent.
	tries   map[string]int
	unclear unclearFailures
}

// unclearFailures are entries that failed while no other was sent: either they
// can't be sent, or nothing can. Until others are sent, every other batch is a
// probe: a batch of entries behind them, where each probe begins at the end of
// the one before. A probe only tells whether others are sent. The job does not
// pass its entries.
type unclearFailures struct {
	ids     []string // of the batch before the probes
	cause   error
	end     delivery.Position // of that batch
	probing bool              // the next batch is a probe
	after   delivery.Position // where that begins
	found   bool              // there are entries behind end
	probed  []string          // entries that failed in probes since others were sent
}

// nextProbe returns where the next batch begins if it is to be a probe.
func (p *poisonCheck) nextProbe() (delivery.Position, bool) {
	if !p.unclear.probing {
		return delivery.Position{}, false
	}
	p.unclear.probing = false
	return p.unclear.after, true
}

// judge makes those entries fail for good that failed often enough while others
// were sent. A failure while no other is sent does not count.
func (p *poisonCheck) judge(b *replayBatch) {
	others := slices.ContainsFunc(b.errs, func(err error) bool { return err == nil })
	if b.probe {
		p.learn(b, others)
		return
	}
	if len(p.tries) > maxRemembered { // someone else has dealt with some of them
		clear(p.tries)
	}
	unclear := unclearFailures{end: b.end, after: p.unclear.after, found: p.unclear.found, probed: p.unclear.probed}
	for i, id := range b.ids {
		switch err := b.errs[i]; {
		case outcomeOf(err) != outcomeRetry:
			delete(p.tries, id)
		case temporary(err):
		case others && p.tries[id]+1 >= maxTries, p.tries[id] >= maxTries:
			b.errs[i] = fmt.Errorf("%w: %w", ErrNotReplayable, err)
			delete(p.tries, id)
		case others:
			p.tries[id]++
		default:
			unclear.ids, unclear.cause, unclear.probing = append(unclear.ids, id), err, true
		}
	}
	if p.unclear = unclear; !unclear.probing {
		p.unclear = unclearFailures{}
	} else if unclear.after.Compare(unclear.end) < 0 {
		p.unclear.after, p.unclear.found = unclear.end, false
	}
}

// learn is judge for a probe. If there is no entry behind the unclear ones, it
// counts that others were sent beside them before.
func (p *poisonCheck) learn(b *replayBatch, others bool) {
	unclear := &p.unclear
	for i, err := range b.errs {
		if outcomeOf(err) == outcomeRetry && !temporary(err) && len(unclear.probed) < maxRemembered {
			unclear.probed = append(unclear.probed, b.ids[i])
		}
	}
	last := len(b.ids) == 0 && !unclear.found
	for _, id := range unclear.ids {
		if others || last && p.tries[id] > 0 {
			p.tries[id]++
		}
	}
	if !others && len(b.ids) > 0 {
		unclear.after, unclear.found = b.end, true
		return
	}
	if others {
		for _, id := range unclear.probed {
			p.tries[id]++
		}
	}
	unclear.after, unclear.found, unclear.probed = delivery.Position{}, false, nil
}

// foundNothing is learn for a probe whose page had no entry to be sent. The next
// one goes on behind it, if there is more.
func (p *poisonCheck) foundNothing(b *replayBatch) {
	if b.last {
		p.learn(b, false)
		return
	}
	p.unclear.after, p.unclear.probing = b.end, true
}

// temporary reports whether err is a failure of the transport or the store, and
// not of an entry.
func temporary(err error) bool {
	for _, cause := range []error{
		delivery.ErrOutcomeUnknown, delivery.ErrRefused, delivery.ErrBlocked, delivery.ErrClosed, delivery.ErrStoreDown,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
