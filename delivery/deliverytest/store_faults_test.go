package deliverytest_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// storeFaults maps each fault to the subtests that have to notice it.
var storeFaults = map[string]struct {
	fault    storeFault
	subtests []string
}{
	"loses headers":       {saved(func(r *delivery.Record) { r.Headers = nil }), []string{"KeepsEveryField"}},
	"loses the claim":     {saved(func(r *delivery.Record) { r.ClaimedBy = "" }), []string{"KeepsEveryField", "Life"}},
	"mixes up priorities": {saved(func(r *delivery.Record) { r.Priority = delivery.Normal }), []string{"KeepsEveryField", "Stats"}},
	"ends text at NUL": {saved(func(r *delivery.Record) {
		r.Recipient, _, _ = strings.Cut(r.Recipient, "\x00")
	}), []string{"KeepsOddText"}},
	"mends text":        {saved(func(r *delivery.Record) { r.ID = strings.ToValidUTF8(r.ID, "?") }), []string{"KeepsOddText", "ListEqualTimes"}},
	"cuts large bodies": {saved(func(r *delivery.Record) { r.Body = r.Body[:min(len(r.Body), 1<<20)] }), []string{"KeepsBodies"}},
	"tells time to the nanosecond": {got(func(r *delivery.Record) {
		if !r.DueAt.IsZero() {
			r.DueAt = r.DueAt.Add(1)
		}
	}), []string{"KeepsTimes"}},
	"tells local times": {got(func(r *delivery.Record) { r.UpdatedAt = r.UpdatedAt.In(time.FixedZone("here", 3600)) }), []string{"KeepsTimes"}},
	"begins in 1970": {got(func(r *delivery.Record) {
		if r.CreatedAt.IsZero() {
			r.CreatedAt = time.Unix(0, 0).UTC()
		}
	}), []string{"KeepsTimes", "KeepsEveryField"}},
	"shares bodies": {func() storeFault {
		bodies := map[string][]byte{}
		fault := got(func(r *delivery.Record) { r.Body = bodies[r.ID] })
		fault.save = func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
			for _, record := range records {
				bodies[record.ID] = record.Body
			}
			return s.Save(ctx, records...)
		}
		return fault
	}(), []string{"IsolatesCallers"}},
	"does not tell who is there": {saveTold(withoutErrors), []string{"SavesOnce", "SavesAtOnce", "TellsSavesApart", "BatchesCrosswise"}},
	"tells one error of saves":   {saveTold(oneError), []string{"TellsSavesApart", "EndedContexts"}},
	"mixes up errors of saves":   {saveTold(inReverse), []string{"TellsSavesApart"}},
	"has errors that are none": {storeFault{save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		if errs := s.Save(ctx, records...); errs != nil {
			return errs
		}
		return make([]error, len(records))
	}}, []string{"SavesOnce", "GetsInOrder"}},
	"stops at what is wrong": {storeFault{save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		errs := s.Save(ctx, records[:min(1, len(records))]...)
		if errs != nil || len(records) < 2 {
			return errs
		}
		return s.Save(ctx, records...)
	}}, []string{"TellsSavesApart", "ManyAtOnce"}},
	"gets in order of IDs": {storeFault{get: func(ctx context.Context, s *memory.Store, ids []string) ([]delivery.Record, []error) {
		return s.Get(ctx, slices.Sorted(slices.Values(ids))...)
	}}, []string{"GetsInOrder"}},
	"is overwhelmed": {saved(func(*delivery.Record) {}).limited(1000), []string{"ManyAtOnce"}},

	"keeps quiet about a late update": {updateTold(func(p []delivery.Progress, errs []error) ([]delivery.Progress, []error) {
		return p, nil
	}), []string{"LateNews", "Transitions", "TellsUpdatesApart", "LeasesEnd"}},
	"does not tell what refused": {updateTold(func(p []delivery.Progress, errs []error) ([]delivery.Progress, []error) {
		for i, err := range errs {
			if err != nil {
				p[i] = delivery.Progress{}
			}
		}
		return p, errs
	}), []string{"LateNews", "Transitions", "TellsUpdatesApart"}},
	"tells little of a late update": {updateTold(func(p []delivery.Progress, errs []error) ([]delivery.Progress, []error) {
		for i, err := range errs {
			if errors.Is(err, delivery.ErrLate) {
				errs[i] = delivery.ErrLate
			}
		}
		return p, errs
	}), []string{"LateNews", "RandomSteps"}},
	"mixes up errors of updates": {updateTold(func(p []delivery.Progress, errs []error) ([]delivery.Progress, []error) {
		return p, inReverse(errs)
	}), []string{"TellsUpdatesApart", "RandomSteps"}},
	"ignores claims":             {updated(func(u *delivery.Update) { u.OnlyIfClaimedBy = "" }), []string{"LeasesEnd", "Transitions"}},
	"knows no end users":         {updated(func(u *delivery.Update) { u.Acknowledged = false }), []string{"Transitions", "Life"}},
	"knows no generations":       {updated(func(u *delivery.Update) { u.Generation = 0 }), []string{"Life", "RandomSteps"}},
	"forgets failures":           {updated(func(u *delivery.Update) { u.Failure = nil }), []string{"History", "Life"}},
	"makes invalid news":         {updated(func(u *delivery.Update) { u.RetryCount = max(u.RetryCount, 0) }), []string{"TellsUpdatesApart"}},
	"makes one update a record":  {storeFault{update: oneUpdateEach}, []string{"TellsUpdatesApart"}},
	"loses updates at once":      {loseAtOnce(), []string{"UpdatesAtOnce"}},
	"gives batches up":           {storeFault{update: giveUpAtOnce()}, []string{"BatchesCrosswise"}},
	"goes with the first caller": {storeFault{save: goWithTheFirst()}, []string{"CancelledCallers"}},

	"claims twice":          {storeFault{claim: claimTwice()}, []string{"ClaimsAtOnce", "EverythingAtOnce", "RandomSteps"}},
	"claims from any queue": {storeFault{claim: claimFromAny}, []string{"ClaimsByQueue", "RandomSteps"}},
	"stays in its queue":    {updated(func(u *delivery.Update) { u.Queue = "" }), []string{"MovesBetweenQueues", "RandomSteps"}},
	"lists any queue":       {listed(func(q *delivery.RecordQuery) { q.Queue = "" }, page), []string{"TellsByQueue"}},
	"knows no priority":     {claimed(func(c *delivery.Claim) { c.DueFirst = c.Limit }, records), []string{"ClaimsByPriority"}},
	"passes over for ever":  {claimed(func(c *delivery.Claim) { c.DueFirst = 0 }, records), []string{"ClaimsByPriority", "InvalidClaims"}},
	"claims too early":      {claimed(func(c *delivery.Claim) { c.Now = c.Now.Add(time.Microsecond) }, records), []string{"ClaimsWhatIsDue", "LeasesEnd"}},
	"claims too late":       {claimed(func(c *delivery.Claim) { c.Now = c.Now.Add(-time.Microsecond) }, records), []string{"ClaimsWhatIsDue", "NextDue"}},
	"claims too many":       {claimed(func(c *delivery.Claim) { c.Limit++ }, records), []string{"ClaimsInOrder", "InvalidClaims"}},
	"claims too few":        {claimed(func(c *delivery.Claim) { c.Limit = min(c.Limit, 100) }, records), []string{"ClaimsInOrder", "ManyAtOnce"}},
	"claims out of order":   {claimed(claim, slices.Reverse[[]delivery.Record]), []string{"ClaimsInOrder", "ManyAtOnce"}},
	"claims for too long":   {claimed(func(c *delivery.Claim) { c.Lease *= 2 }, records), []string{"LeasesEnd", "ClaimsChangeLittle"}},
	"claims by the clock":   {claimed(func(c *delivery.Claim) { c.Now = time.Now() }, records), []string{"TimeFromArguments"}},
	"claims in a minute":    {claimed(func(c *delivery.Claim) { c.Lease = max(c.Lease, time.Nanosecond) }, records), []string{"InvalidClaims"}},
	"claims without text":   {claimed(claim, eachRecord(func(r *delivery.Record) { r.Body = nil })), []string{"ClaimsChangeLittle", "KeepsBodies"}},
	"claims in secret":      {claimed(claim, eachRecord(func(r *delivery.Record) { r.ClaimedBy = "" })), []string{"ClaimsChangeLittle"}},
	"claims with a stamp":   {claimed(claim, eachRecord(func(r *delivery.Record) { r.UpdatedAt = r.DueAt })), []string{"ClaimsChangeLittle"}},
	"never renews":          {storeFault{renew: func(context.Context, *memory.Store, string, string, time.Time) error { return nil }}, []string{"Renew", "RandomSteps"}},
	"renews a little less": {storeFault{renew: func(ctx context.Context, s *memory.Store, queue, token string, until time.Time) error {
		return s.Renew(ctx, queue, token, until.Add(-1))
	}}, []string{"Renew"}},
	"renews the like": {storeFault{renew: func(ctx context.Context, s *memory.Store, queue, token string, until time.Time) error {
		return errors.Join(s.Renew(ctx, queue, token+" ", until), s.Renew(ctx, queue, token, until))
	}}, []string{"Renew"}},
	"renews any queue": {storeFault{renew: func(ctx context.Context, s *memory.Store, queue, token string, until time.Time) error {
		return errors.Join(s.Renew(ctx, queue, token, until), s.Renew(ctx, "elsewhere", token, until), s.Renew(ctx, "queue", token, until))
	}}, []string{"Renew", "RenewalsEnd"}},
	"knows one due time": {storeFault{nextDue: func(ctx context.Context, s *memory.Store, queue string, _ []delivery.Status) (time.Time, error) {
		statuses := delivery.Statuses()
		return s.NextDue(ctx, queue, statuses[:]...)
	}}, []string{"NextDue", "RandomSteps"}},

	"lists the other way": {listed(func(q *delivery.RecordQuery) { q.Order ^= 1 }, page), []string{"ListOrder", "ListEqualTimes"}},
	"lists bodies": {listed(query, func(p *delivery.RecordPage) {
		for i := range p.Records {
			p.Records[i].Body = []byte("body")
		}
	}), []string{"KeepsBodies", "KeepsEveryField"}},
	"has one page more": {listed(query, func(p *delivery.RecordPage) {
		if p.Next == "" && len(p.Records) == 10 {
			p.Next = "more"
		}
	}), []string{"ListOrder"}},
	"lists until, with it": {listed(func(q *delivery.RecordQuery) {
		if !q.Until.IsZero() {
			q.Until = q.Until.Add(time.Microsecond)
		}
	}, page), []string{"ListFilters"}},
	"takes any type":   {listed(func(q *delivery.RecordQuery) { q.Type = "" }, page), []string{"ListFilters", "KeepsOddText"}},
	"takes any limit":  {listed(func(q *delivery.RecordQuery) { q.Limit = max(0, min(q.Limit, delivery.MaxRecordLimit)) }, page), []string{"ListLimits"}},
	"begins again":     {storeFault{list: beginAgain}, []string{"ListCursors"}},
	"counts to a page": {storeFault{list: listByCount}, []string{"ListWhileRecordsChange"}},
	"miscounts": {storeFault{stats: func(s *delivery.RecordStats) {
		s.Counts[delivery.StatusRead] = map[delivery.Priority]int{delivery.Low: 1}
	}}, []string{"Stats", "Transitions"}},
	"knows no oldest queued": {storeFault{stats: func(s *delivery.RecordStats) { s.OldestQueued = time.Time{} }}, []string{"Stats", "RandomSteps"}},
	"knows no oldest":        {storeFault{stats: func(s *delivery.RecordStats) { s.OldestPending = time.Time{} }}, []string{"Stats", "SavesAtOnce"}},
	"purges a little more": {storeFault{purge: func(ctx context.Context, s *memory.Store, queue string, before time.Time, limit int) (int, error) {
		return s.Purge(ctx, queue, before.Add(time.Microsecond), limit)
	}}, []string{"Purge"}},
	"purges without limit": {storeFault{purge: func(ctx context.Context, s *memory.Store, queue string, before time.Time, _ int) (int, error) {
		return s.Purge(ctx, queue, before, 1<<30)
	}}, []string{"Purge"}},
	"purges any queue": {storeFault{purge: func(ctx context.Context, s *memory.Store, queue string, before time.Time, limit int) (int, error) {
		purged, err := s.Purge(ctx, queue, before, limit)
		for _, other := range []string{"queue", "other", "mail", "sms", "SMS"} {
			n, failure := s.Purge(ctx, other, before, limit-purged)
			purged, err = purged+n, errors.Join(err, failure)
		}
		return purged, err
	}}, []string{"PurgesByQueue", "RandomSteps"}},
	"purges by the clock": {storeFault{purge: func(ctx context.Context, s *memory.Store, queue string, _ time.Time, limit int) (int, error) {
		return s.Purge(ctx, queue, time.Now(), limit)
	}}, []string{"TimeFromArguments"}},

	"never tells": {storeFault{watch: func(*memory.Store, func(time.Time)) func() { return func() {} }}, []string{"Watch"}},
	"tells one": {storeFault{watch: func() func(s *memory.Store, due func(time.Time)) func() {
		stop := func() {}
		return func(s *memory.Store, due func(time.Time)) func() {
			stop()
			stop = s.Watch(due)
			return stop
		}
	}()}, []string{"Watch", "WatchStops"}},
	"never stops to tell": {storeFault{watch: func(s *memory.Store, due func(time.Time)) func() { s.Watch(due); return func() {} }}, []string{"WatchStops"}},
	"tells under a lock":  {tellUnderLock(), []string{"WatchHoldsNothing"}},
	"leaves a goroutine":  {saved(func(*delivery.Record) { go func() { select {} }() }), []string{"LeavesNoGoroutines"}},
	"works without end": {storeFault{
		save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
			return s.Save(context.WithoutCancel(ctx), records...)
		},
	}, []string{"EndedContexts"}},
	"looks without end": {storeFault{
		list: func(ctx context.Context, s *memory.Store, query delivery.RecordQuery) (delivery.RecordPage, error) {
			return s.List(context.WithoutCancel(ctx), query)
		},
	}, []string{"EndedContexts"}},
	"is always there": {storeFault{ping: func(context.Context, *memory.Store) error { return nil }}, []string{"PingStore"}},
}

// oneUpdateEach makes the last update of each record only.
func oneUpdateEach(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error) {
	last := map[string]delivery.Update{}
	for _, update := range updates {
		last[update.ID] = update
	}
	progress, errs := make([]delivery.Progress, len(updates)), make([]error, len(updates))
	for i, update := range updates {
		update = last[update.ID]
		one, oneErrs := s.Update(ctx, update)
		progress[i], errs[i] = one[0], errors.Join(oneErrs...)
	}
	if errors.Join(errs...) == nil {
		errs = nil
	}
	return progress, errs
}

// overlapPatience is how long a fault waits for the calls that it needs at
// once. When they don't come, it lets everything succeed: the suite passes
// then, and TestSuiteNoticesStoreFaults fails.
const overlapPatience = 30 * time.Second

// loseAtOnce reads and writes in two steps: of the first two updates of a
// record at once, one is lost. The first waits for the second.
func loseAtOnce() storeFault {
	type meeting struct {
		update   delivery.Update
		both     chan struct{}
		progress []delivery.Progress
		errs     []error
	}
	var mu sync.Mutex
	meetings := map[string]*meeting{}
	return storeFault{
		update: func(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error) {
			mu.Lock()
			defer mu.Unlock()
			id := updates[0].ID
			switch m, begun := meetings[id]; {
			case !begun:
				m = &meeting{update: updates[0], both: make(chan struct{})}
				meetings[id] = m
				mu.Unlock()
				select {
				case <-m.both:
				case <-time.After(overlapPatience):
				}
				mu.Lock()
				if m.progress != nil {
					return m.progress, m.errs
				}
				meetings[id] = nil
			case m != nil:
				meetings[id] = nil
				records, errs := s.Get(ctx, id)
				m.progress, m.errs = s.Update(ctx, m.update)
				close(m.both)
				if errs != nil {
					break
				}
				if err := records[0].Apply(updates[0]); err != nil {
					return []delivery.Progress{records[0].Progress}, []error{err}
				}
				return []delivery.Progress{records[0].Progress}, nil
			}
			return s.Update(ctx, updates...)
		},
		claim: func(ctx context.Context, s *memory.Store, claim delivery.Claim) ([]delivery.Record, error) {
			mu.Lock()
			defer mu.Unlock()
			return s.Claim(ctx, claim)
		},
	}
}

// giveUpAtOnce fails a batch that comes while another is under way. The first
// waits for it.
func giveUpAtOnce() func(context.Context, *memory.Store, []delivery.Update) ([]delivery.Progress, []error) {
	var batches atomic.Int64
	second := make(chan struct{})
	return func(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error) {
		switch batches.Add(1) {
		case 1:
			select {
			case <-second:
			case <-time.After(overlapPatience):
			}
		case 2:
			close(second)
			return make([]delivery.Progress, len(updates)), slices.Repeat([]error{delivery.ErrStoreDown}, len(updates))
		}
		return s.Update(ctx, updates...)
	}
}

// goWithTheFirst fails, once, all callers that are there together when the
// context of one of them has ended. It serves nobody until there is a caller
// whose context has ended, and one whose context has not.
func goWithTheFirst() func(context.Context, *memory.Store, []delivery.Record) []error {
	var mu sync.Mutex
	var callers []context.Context
	var gone error
	over := make(chan struct{})
	// look is called under the lock.
	look := func() {
		stays := false
		for _, ctx := range callers {
			if err := ctx.Err(); err != nil {
				gone = err
			} else {
				stays = true
			}
		}
		if gone != nil && stays {
			callers = nil
			close(over)
		}
	}
	return func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		mu.Lock()
		select {
		case <-over:
			mu.Unlock()
			return s.Save(ctx, records...)
		default:
		}
		callers = append(callers, ctx)
		look()
		mu.Unlock()
		select {
		case <-over:
			return slices.Repeat([]error{gone}, len(records))
		case <-ctx.Done():
			mu.Lock()
			look()
			mu.Unlock()
			return slices.Repeat([]error{ctx.Err()}, len(records))
		case <-time.After(overlapPatience):
			return s.Save(ctx, records...)
		}
	}
}

// claimTwice sometimes returns records again that were claimed before.
func claimTwice() func(context.Context, *memory.Store, delivery.Claim) ([]delivery.Record, error) {
	var mu sync.Mutex
	var last []delivery.Record
	calls := 0
	return func(ctx context.Context, s *memory.Store, claim delivery.Claim) ([]delivery.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls%5 == 0 && len(last) > 0 {
			return slices.Clone(last), nil
		}
		records, err := s.Claim(ctx, claim)
		if len(records) > 0 {
			last = records
		}
		return records, err
	}
}

// claimFromAny takes what is due of another queue when nothing of its own is.
func claimFromAny(ctx context.Context, s *memory.Store, claim delivery.Claim) ([]delivery.Record, error) {
	records, err := s.Claim(ctx, claim)
	for _, queue := range []string{"mail", "queue", "other"} {
		if len(records) > 0 || err != nil || claim.Validate() != nil {
			break
		}
		claim.Queue = queue
		records, err = s.Claim(ctx, claim)
	}
	return records, err
}

// beginAgain reads a cursor that it does not understand as none.
func beginAgain(ctx context.Context, s *memory.Store, query delivery.RecordQuery) (delivery.RecordPage, error) {
	page, err := s.List(ctx, query)
	if errors.Is(err, delivery.ErrCursor) {
		query.Cursor = ""
		return s.List(ctx, query)
	}
	return page, err
}

// listByCount has the number of records before the page as its cursor.
func listByCount(ctx context.Context, s *memory.Store, query delivery.RecordQuery) (delivery.RecordPage, error) {
	start, _ := strconv.Atoi(query.Cursor)
	limit := query.Limit
	query.Limit, query.Cursor = delivery.MaxRecordLimit, ""
	page, err := s.List(ctx, query)
	if err != nil {
		return page, err
	}
	page.Records = page.Records[min(start, len(page.Records)):]
	if len(page.Records) > limit {
		page.Records, page.Next = page.Records[:limit], strconv.Itoa(start+limit)
	}
	return page, nil
}

func tellUnderLock() storeFault {
	var mu sync.Mutex
	return storeFault{
		save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
			mu.Lock()
			defer mu.Unlock()
			return s.Save(ctx, records...)
		},
		get: func(ctx context.Context, s *memory.Store, ids []string) ([]delivery.Record, []error) {
			mu.Lock()
			defer mu.Unlock()
			return s.Get(ctx, ids...)
		},
	}
}

// staleStore remembers the records that it has read.
type staleStore struct {
	delivery.Store
	records map[string]delivery.Record
}

func (s *staleStore) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	records, errs := s.Store.Get(ctx, ids...)
	for i := range records {
		if old, ok := s.records[ids[i]]; ok {
			records[i] = old
		} else {
			s.records[ids[i]] = records[i]
		}
	}
	return records, errs
}
