package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// The least time between the beginnings of two rounds, unless the first one had
// its hands full: while there is something to do, and while rounds that follow
// one another closely find nothing, because others were faster or clocks differ.
const (
	roundSpacing     = 20 * time.Millisecond
	idleRoundSpacing = time.Second
)

// patrol is one Run of a RetryWorker: rounds, and sleep in between.
type patrol struct {
	*RetryWorker
	alarm   *alarm
	renewal *renewal // nil unless the transport is Volatile
	duties  []duty

	unfounded unfounded // letters
	// What it depends on.
	storage *outage
	sending *outage
	burying *outage

	timeouts metrics.Counter

	began time.Time // the last round
	found int       // what it claimed
	idle  int       // rounds in close succession that found nothing
}

// duty is what is done about the due records of one status, unless what is
// needed for it is down.
type duty struct {
	status Status
	needs  *outage
	see    func(ctx context.Context, batch *claimed)
}

// claimed is a batch of records that nobody else sees to until the lease ends.
type claimed struct {
	records []Record
	token   string // nobody else's, another for each batch
	at      time.Time
	until   time.Time
}

func (w *RetryWorker) patrol() (*patrol, error) {
	if w == nil || w.store == nil {
		return nil, fmt.Errorf("%w: RetryWorker was not made by NewRetryWorker", ErrConfig)
	}
	p := &patrol{
		RetryWorker: w,
		alarm:       newAlarm(),
		storage:     newOutage("store", w.config.Metrics, w.config.Logger),
		sending:     newOutage("transport", w.config.Metrics, w.config.Logger),
		burying:     newOutage("dead_letters", w.config.Metrics, w.config.Logger),
		timeouts:    w.config.Metrics.Counter(metrics.AckTimeoutsTotal),
		unfounded:   unfounded{letters: w.config.DeadLetters, logger: w.config.Logger},
	}
	if w.session != "" {
		p.renewal = &renewal{store: w.store, session: w.session, lease: w.config.Lease, storage: p.storage}
	}
	p.duties = []duty{
		{StatusRetrying, p.sending, p.dispatch},
		{StatusPending, p.sending, p.dispatch},
		// Only a Volatile transport leaves these behind, which need not be the one
		// that is used today.
		{StatusQueued, p.sending, p.dispatch},
	}
	if !w.config.IgnoreAckTimeouts {
		p.duties = append(p.duties, duty{StatusSent, p.burying, p.expire})
	}
	return p, nil
}

// round does each duty for one batch, so that none has to wait for another's
// backlog. It says whether some batch was full, and more may be due. When ctx
// ends it claims no more; what it has claimed it settles with work.
func (p *patrol) round(ctx, work context.Context) (full bool) {
	last := p.began
	p.began, p.found = time.Now(), 0
	p.alarm.reset() // what changes from here on rings it again
	for _, duty := range p.duties {
		switch now := time.Now(); {
		case ctx.Err() != nil, p.storage.over().After(now):
			return false
		case duty.needs.over().After(now), duty.status == StatusQueued && !p.renewal.fresh(ctx):
			continue
		}
		// A store may carry out what nobody waits for any more. What is claimed
		// has to be known, or it is nobody's until the lease ends.
		batch := p.claim(work, duty.status)
		if batch == nil {
			continue
		}
		p.found += len(batch.records)
		full = full || len(batch.records) == p.config.BatchSize
		duty.see(work, batch)
	}
	p.unfounded.takeBack(work)
	if p.found > 0 || p.began.Sub(last) >= idleRoundSpacing {
		p.idle = 0
	} else {
		p.idle++
	}
	return full
}

// claim returns nil when nothing is due or can be had.
func (p *patrol) claim(ctx context.Context, status Status) *claimed {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	now := time.Now()
	claim := Claim{Status: status, Token: NewID(), Now: now, Lease: p.config.Lease, Limit: p.config.BatchSize}
	records, err := p.store.Claim(limited, claim)
	if err != nil {
		if ctx.Err() == nil {
			p.storage.failed(ctx, err)
		}
		return nil
	}
	p.storage.answered(ctx)
	if len(records) == 0 {
		return nil
	}
	return &claimed{records: records, token: claim.Token, at: now, until: now.Add(claim.Lease)}
}

// sleep sleeps until something is due, as far as that is known. It returns false
// when ctx ends.
func (p *patrol) sleep(ctx context.Context) bool {
	now := time.Now()
	latest := now.Add(p.config.ScanInterval)
	sooner := func(at time.Time) {
		if !at.IsZero() && at.Before(latest) {
			latest = at
		}
	}
	sooner(p.unfounded.again)
	var statuses []Status
	for _, duty := range p.duties {
		if over := duty.needs.over(); over.After(now) {
			sooner(over)
		} else {
			statuses = append(statuses, duty.status)
		}
	}
	if len(statuses) > 0 && !p.storage.over().After(now) {
		due, err := p.nextDue(ctx, statuses)
		switch {
		case err == nil:
			sooner(due)
		case ctx.Err() == nil:
			p.storage.failed(ctx, err)
		}
	}
	if over := p.storage.over(); over.After(now) {
		return p.alarm.sleep(ctx, over, over)
	}
	spacing := idleRoundSpacing
	if p.idle < 6 {
		spacing = min(spacing, roundSpacing<<p.idle)
	}
	return p.alarm.sleep(ctx, p.began.Add(spacing), latest)
}

func (p *patrol) nextDue(ctx context.Context, statuses []Status) (time.Time, error) {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return p.store.NextDue(limited, statuses...)
}

// mark has the store carry out updates, and tries again while it is down, as
// long as the lease lasts: longer than that is somebody else's turn. It returns
// what came of each, in order.
func (p *patrol) mark(ctx context.Context, batch *claimed, updates []Update) ([]Progress, []error) {
	progress, errs := p.update(ctx, updates)
	for {
		var again []int
		for i, err := range errs {
			if unanswered(err) {
				again = append(again, i)
			}
		}
		if len(again) == 0 {
			p.storage.answered(ctx)
			return progress, errs
		}
		if ctx.Err() != nil {
			return progress, errs
		}
		p.storage.failed(ctx, errs[again[0]])
		over := p.storage.over()
		if over.After(batch.until) || !retry.Wait(ctx.Done(), time.Until(over)) {
			return progress, errs
		}
		rest := make([]Update, len(again))
		for k, i := range again {
			rest[k] = updates[i]
		}
		newer, failures := p.update(ctx, rest)
		for k, i := range again {
			progress[i], errs[i] = newer[k], failures[k]
		}
	}
}

func (p *patrol) update(ctx context.Context, updates []Update) ([]Progress, []error) {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	progress, errs := p.store.Update(limited, updates...)
	errs = eachOf(errs, len(updates))
	if len(progress) != len(updates) {
		progress = make([]Progress, len(updates))
	}
	return progress, errs
}

// outages tells of what is down.
func (p *patrol) outages() error {
	return errors.Join(p.storage.err(), p.sending.err(), p.burying.err())
}
