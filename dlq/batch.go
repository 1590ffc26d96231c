package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// maxTries is how often an entry is tried that fails while others are sent.
const maxTries = 5

// errNotPicked: the entry was put again, and is no longer the job's.
var errNotPicked = errors.New("dlq: entry was put again")

// batch is a page of a job's entries, on their way.
type batch struct {
	ids    []string
	places []delivery.Position
	errs   []error // of each id; nil when it was sent and confirmed
	last   bool    // nothing lies behind it
	probe  bool    // see doubt

	claimedUntil time.Time
	next         time.Time // when the one after it may be sent

	// What conclude makes of it.
	until   delivery.Position // the last entry that is dealt with
	sent    []string
	claimed []string // and not sent
	outage  error    // why something behind until has to be tried again
	fault   error    // what last went wrong

	requeued, skipped, failed int
}

// read reads the next batch, without its entries: claiming returns them as they
// are by then.
func (r *run) read(ctx context.Context) *batch {
	b := &batch{until: r.after, probe: r.doubt.probing}
	from := r.after
	if b.probe {
		from, r.doubt.probing = r.doubt.after, false
	}
	query := Query{Filter: r.filter, Order: OldestFirst, Limit: r.pace.group(r.manager.config.BatchSize)}
	scan, err := query.Scan()
	if err != nil {
		b.outage = err
		return b
	}
	if from.ID != "" {
		query.Cursor = scan.Cursor(&Entry{ID: from.ID, DeadAt: from.At})
	}
	bounded, cancel := context.WithTimeout(ctx, r.manager.config.Lease)
	defer cancel()
	page, err := r.manager.store.List(bounded, query)
	if err != nil {
		b.outage = err
		return b
	}
	b.last = page.Next == "" || len(page.Entries) == 0
	for i := range page.Entries {
		b.ids = append(b.ids, page.Entries[i].ID)
		b.places = append(b.places, PositionOf(&page.Entries[i]))
	}
	if b.probe {
		b.outage = r.doubt.cause
	}
	return b
}

// send claims and sends the batch.
func (r *run) send(ctx context.Context, b *batch) {
	m := r.manager
	now := time.Now()
	claim := Claim{Token: r.token, Now: now, Lease: r.leaseUntil.Sub(now)}
	b.claimedUntil = r.leaseUntil
	bounded, cancel := r.bounded(ctx)
	entries, errs := m.claim(bounded, claim, b.ids)
	cancel()
	claimed := slices.ContainsFunc(errs, func(err error) bool { return err == nil })
	for i := range entries {
		if errs[i] == nil && !r.filter.Match(&entries[i]) {
			errs[i] = errNotPicked
		}
	}
	sending := time.Now() // claiming may have taken long
	r.pace.sent(m.send(ctx, claim, entries, errs), sending)
	b.errs = errs
	if claimed { // or else the store is to blame
		r.judge(b)
	}
}

// doubt is about entries that failed while no other was sent: either they can't
// be sent, or nothing can. So every other batch is a probe, which begins behind
// them, each where the one before has ended, until one shows that others go. A
// probe passes nothing by. It only tells what to think of those that failed.
type doubt struct {
	ids     []string // of the batch before the probes
	cause   error
	probed  []string // those that failed in probes since others were sent
	end     delivery.Position
	probing bool              // with the next batch
	after   delivery.Position // where that begins
}

// maxDoubts bounds what is remembered of entries that failed, beside a batch.
const maxDoubts = MaxBatchSize

// judge makes those fail for good that failed often enough while others were
// sent. That others failed too says nothing against an entry.
func (r *run) judge(b *batch) {
	others := slices.ContainsFunc(b.errs, func(err error) bool { return err == nil })
	if b.probe {
		r.learn(b, others)
		return
	}
	if len(r.tries) > maxDoubts { // some were dealt with by others
		clear(r.tries)
	}
	in := doubt{end: b.places[len(b.places)-1], after: r.doubt.after, probed: r.doubt.probed}
	for i, id := range b.ids {
		switch err := b.errs[i]; {
		case fateOf(err) != waiting:
			delete(r.tries, id)
		case temporary(err):
		case others && r.tries[id]+1 >= maxTries, r.tries[id] >= maxTries:
			b.errs[i] = fmt.Errorf("%w: %w", ErrNotReplayable, err)
			delete(r.tries, id)
		case others:
			r.tries[id]++
		default:
			in.ids, in.cause, in.probing = append(in.ids, id), err, true
		}
	}
	if r.doubt = in; !in.probing {
		r.doubt = doubt{}
	} else if in.after.Compare(in.end) < 0 {
		r.doubt.after = in.end
	}
}

// learn is judge for a probe. Where nothing lies behind those in doubt, it counts
// that others were sent beside them before.
func (r *run) learn(b *batch, others bool) {
	in := &r.doubt
	for i, err := range b.errs {
		if fateOf(err) == waiting && !temporary(err) && len(in.probed) < maxDoubts {
			in.probed = append(in.probed, b.ids[i])
		}
	}
	last := len(b.ids) == 0 && in.after == in.end
	for _, id := range in.ids {
		if others || last && r.tries[id] > 0 {
			r.tries[id]++
		}
	}
	if !others && len(b.ids) > 0 {
		in.after = b.places[len(b.places)-1]
		return
	}
	if others {
		for _, id := range in.probed {
			r.tries[id]++
		}
	}
	in.after, in.probed = delivery.Position{}, nil
}

// conclude counts what the batch has come to. What is refused or skipped behind
// an entry that has to be tried again is seen again, and counted then.
func (b *batch) conclude() {
	for i, err := range b.errs {
		fate := fateOf(err)
		if fate == waiting && b.outage == nil {
			b.outage = err
		}
		switch {
		case fate == sent:
			b.sent = append(b.sent, b.ids[i])
			b.requeued++
		case b.outage != nil:
		case fate == refused:
			b.failed++
		default:
			b.skipped++
		}
		if fate == refused {
			b.fault = err
		}
		if fate != sent && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClaimed) {
			b.claimed = append(b.claimed, b.ids[i])
		}
		if b.outage == nil {
			b.until = b.places[i]
		}
	}
	if b.outage != nil {
		b.fault = b.outage
	}
}

// fate is what an entry's error means for its job.
type fate uint8

const (
	sent    fate = iota
	skipped      // nothing to be done about it
	refused      // can't be sent, now or later
	waiting      // to be tried again
)

func fateOf(err error) fate {
	switch {
	case err == nil:
		return sent
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrClaimed) || errors.Is(err, errNotPicked):
		return skipped
	case errors.Is(err, ErrNotReplayable) || errors.Is(err, delivery.ErrInvalid):
		return refused
	}
	return waiting
}

// temporary says that the transport or the store is to blame, and no entry.
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
