package deliverytest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// recordModel is what a store has to be: records, and delivery.Record.Apply.
type recordModel struct {
	*storeSubtest
	random  *rand.Rand
	now     time.Time
	records []delivery.Record
	saved   int
	// last describes the last step.
	last string
}

// randomWalks are checks that take random steps on a few records each.
func randomWalks() []storeCheck {
	walks := make([]storeCheck, 8)
	for seed := range walks {
		walks[seed] = storeCheck{fmt.Sprint("Seed", seed), func(t *storeSubtest) { randomSteps(t, uint64(seed)) }}
	}
	return walks
}

// randomSteps takes random steps on a few records. After each it compares what
// the store answers with the model.
func randomSteps(t *storeSubtest, seed uint64) {
	const length = 150
	random := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // fixed seeds
	model := &recordModel{storeSubtest: t, now: storeStart, random: random}
	for step := range length {
		if err := model.step(); err != nil {
			t.Fatalf("step %d: %s: %v", step, model.last, err)
		}
	}
	if err := model.purgeAll(); err != nil {
		t.Fatalf("%v", err)
	}
}

var modelTokens = []string{"", "w1", "w2", "w3"}

func (m *recordModel) randomToken() string { return modelTokens[m.random.IntN(len(modelTokens))] }

func (m *recordModel) randomQueue() string { return []string{storeQueue, "other"}[m.random.IntN(2)] }

func (m *recordModel) randomStatus() delivery.Status {
	statuses := delivery.Statuses()
	return statuses[m.random.IntN(len(statuses))]
}

// randomTime is a time around now, sometimes zero.
func (m *recordModel) randomTime() time.Time {
	if m.random.IntN(4) == 0 {
		return time.Time{}
	}
	return m.now.Add(time.Duration(m.random.IntN(40)-20) * time.Second)
}

func (m *recordModel) step() error {
	m.now = m.now.Add(time.Duration(m.random.IntN(5_000_000)) * time.Microsecond)
	var err error
	switch n := m.random.IntN(20); {
	case n < 3 || len(m.records) == 0:
		err = m.stepSave()
	case n < 14:
		err = m.stepUpdate()
	case n < 17:
		err = m.stepClaim()
	case n < 18:
		err = m.stepRenew()
	case n < 19:
		err = m.stepList()
	default:
		err = m.stepPurge()
	}
	return errors.Join(err, m.check())
}

func (m *recordModel) stepSave() error {
	record := plainRecord(m.saved)
	if len(m.records) > 6 || m.random.IntN(8) == 0 && len(m.records) > 0 {
		record = m.records[m.random.IntN(len(m.records))]
		record.Subject = "another"
		m.last = "save again " + record.ID
		if err := m.compareErrors(m.store.Save(m.Context(), record), delivery.ErrExists); err != nil {
			return err
		}
		return nil
	}
	m.saved++
	priorities := delivery.Priorities()
	record.Priority = priorities[m.random.IntN(len(priorities))]
	record.Recipient = fmt.Sprint("recipient ", m.random.IntN(3))
	record.CreatedAt = m.now.Add(time.Duration(m.random.IntN(3)) * time.Second)
	record.Status, record.DueAt, record.ClaimedBy, record.UpdatedAt = m.randomStatus(), m.randomTime(), m.randomToken(), m.now
	record.RetryCount, record.Generation, record.Queue = m.random.IntN(2), m.random.IntN(2), m.randomQueue()
	m.last = fmt.Sprintf("save %+v", record)
	m.records = append(m.records, record)
	return m.compareErrors(m.store.Save(m.Context(), record), nil)
}

func (m *recordModel) stepUpdate() error {
	updates := make([]delivery.Update, 1+m.random.IntN(3))
	want := make([]error, len(updates))
	wantProgress := make([]delivery.Progress, len(updates))
	for i := range updates {
		if m.random.IntN(20) == 0 {
			updates[i] = delivery.Update{ID: "nobody", Status: delivery.StatusQueued, At: m.now}
			want[i] = delivery.ErrNotFound
			continue
		}
		record := &m.records[m.random.IntN(len(m.records))]
		updates[i] = m.randomUpdate(record)
		if want[i] = updates[i].Validate(); want[i] != nil {
			want[i] = delivery.ErrInvalid
			continue
		}
		want[i] = record.Apply(updates[i])
		wantProgress[i] = record.Progress
	}
	m.last = fmt.Sprintf("update %+v", updates)
	progress, errs := m.store.Update(m.Context(), updates...)
	if err := m.compareErrors(errs, want...); err != nil {
		return err
	}
	for i := range updates {
		if errors.Is(want[i], delivery.ErrInvalid) {
			continue
		}
		if err := progressDifferences(&wantProgress[i], &progress[i]); err != nil {
			return fmt.Errorf("progress %d: %w", i, err)
		}
	}
	return nil
}

// randomUpdate is an update of the record that may be valid, late or invalid.
func (m *recordModel) randomUpdate(record *delivery.Record) delivery.Update {
	update := delivery.Update{
		ID: record.ID, Status: m.randomStatus(), Generation: record.Generation, RetryCount: record.RetryCount,
		At: m.now, DueAt: m.randomTime(), ClaimedBy: m.randomToken(),
	}
	switch m.random.IntN(10) {
	case 0:
		update.Generation, update.RetryCount = record.Generation+1, 0
	case 1:
		update.Generation--
	case 2:
		update.RetryCount--
	}
	if m.random.IntN(3) == 0 {
		update.RetryCount++
		update.Failure = &delivery.Failure{At: m.now, Attempt: record.RetryCount + 1, Error: fmt.Sprint("failure at ", m.now)}
	}
	if m.random.IntN(4) == 0 {
		update.Queue = m.randomQueue()
	}
	if m.random.IntN(3) == 0 {
		update.OnlyIfClaimedBy = m.randomToken()
	}
	update.OnlyIfWaiting = update.Status == delivery.StatusRetrying && m.random.IntN(2) == 0
	if update.Status == delivery.StatusFailed {
		update.DeadLetterID = fmt.Sprint("letter ", m.random.IntN(100))
	}
	update.Acknowledged = (update.Status == delivery.StatusDelivered || update.Status == delivery.StatusRead) && m.random.IntN(2) == 0
	return update
}

func (m *recordModel) stepClaim() error {
	claim := claimOf(m.randomStatus(), modelTokens[1+m.random.IntN(3)], m.now, 1+m.random.IntN(3))
	claim.Queue = m.randomQueue()
	claim.Lease = time.Duration(1+m.random.IntN(30)) * time.Second
	claim.DueFirst = claim.Limit * m.random.IntN(2)
	m.last = fmt.Sprintf("claim %+v", claim)
	var want []delivery.Record
	for i := range m.records {
		if record := &m.records[i]; record.Queue == claim.Queue && record.Status == claim.Status && !record.DueAt.IsZero() && !record.DueAt.After(claim.Now) {
			want = append(want, *record)
		}
	}
	order := compareClaimed
	if claim.DueFirst > 0 {
		order = compareDue
	}
	slices.SortFunc(want, order)
	want = want[:min(len(want), claim.Limit)]
	claimed, err := m.store.Claim(m.Context(), claim)
	if err != nil {
		return err
	}
	if len(claimed) != len(want) {
		return fmt.Errorf("%d were claimed, want %d", len(claimed), len(want))
	}
	before := make([]delivery.Record, len(claimed))
	for i := range claimed {
		record := recordOf(m.records, claimed[i].ID)
		if record == nil || record.Queue != claim.Queue || record.Status != claim.Status {
			return fmt.Errorf("claimed %q, which is not in the queue or has another status", claimed[i].ID)
		}
		before[i] = *record
		record.ClaimedBy, record.DueAt = claim.Token, claim.Now.Add(claim.Lease)
		if err := recordDifferences(record, &claimed[i]); err != nil {
			return fmt.Errorf("claimed %q: %w", claimed[i].ID, err)
		}
	}
	if !slices.IsSortedFunc(before, compareClaimed) {
		return fmt.Errorf("claimed %q, which is not their order", idsOf(claimed))
	}
	// Of several that are equal any may come.
	slices.SortStableFunc(before, order)
	if slices.CompareFunc(before, want, order) != 0 {
		return fmt.Errorf("claimed %q, want the like of %q", idsOf(claimed), idsOf(want))
	}
	return nil
}

// compareClaimed is the order in which records are claimed.
func compareClaimed(a, b delivery.Record) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), compareDue(a, b))
}

func compareDue(a, b delivery.Record) int { return a.DueAt.Compare(b.DueAt) }

func (m *recordModel) stepRenew() error {
	queue, token, until := m.randomQueue(), modelTokens[1+m.random.IntN(3)], m.now.Add(time.Duration(m.random.IntN(30))*time.Second)
	m.last = fmt.Sprintf("renew %s of %s until %s", token, queue, until)
	for i := range m.records {
		record := &m.records[i]
		if record.Queue == queue && record.ClaimedBy == token && (record.Status == delivery.StatusPending || record.Status == delivery.StatusQueued) {
			record.DueAt = until
		}
	}
	return m.store.Renew(m.Context(), queue, token, until)
}

func (m *recordModel) stepList() error {
	query := delivery.RecordQuery{Limit: 1 + m.random.IntN(3)}
	query.Order = delivery.RecordOrder(m.random.IntN(2)) //nolint:gosec // 0 or 1
	if m.random.IntN(2) == 0 {
		query.Statuses = []delivery.Status{m.randomStatus(), m.randomStatus(), m.randomStatus()}
	}
	if m.random.IntN(2) == 0 {
		query.Recipient = fmt.Sprint("recipient ", m.random.IntN(3))
	}
	if m.random.IntN(2) == 0 {
		query.Queue = m.randomQueue()
	}
	m.last = fmt.Sprintf("list %+v", query)
	var want []delivery.Record
	for i := range m.records {
		if query.Match(&m.records[i]) {
			want = append(want, m.records[i])
		}
	}
	slices.SortFunc(want, func(a, b delivery.Record) int {
		compare := delivery.PositionOf(&a).Compare(delivery.PositionOf(&b))
		if query.Order == delivery.NewestFirst {
			return -compare
		}
		return compare
	})
	got := m.listAll(query, nil)
	if !slices.Equal(idsOf(got), idsOf(want)) {
		return fmt.Errorf("listed %q, want %q", idsOf(got), idsOf(want))
	}
	for i := range got {
		want[i].Body = nil
		if err := recordDifferences(&want[i], &got[i]); err != nil {
			return fmt.Errorf("listed %q: %w", got[i].ID, err)
		}
	}
	return nil
}

func (m *recordModel) stepPurge() error {
	queue, before, limit := m.randomQueue(), m.now.Add(-time.Duration(m.random.IntN(60))*time.Second), 1+m.random.IntN(2)
	m.last = fmt.Sprintf("purge up to %d of %s before %s", limit, queue, before)
	var old []string
	for i := range m.records {
		record := &m.records[i]
		if record.Queue == queue && (record.Status.Final() || record.Status == delivery.StatusFailed) && record.UpdatedAt.Before(before) {
			old = append(old, record.ID)
		}
	}
	want := min(limit, len(old))
	got, err := m.store.Purge(m.Context(), queue, before, limit)
	if err := checkCount("purged", got, want, err); err != nil || want == 0 {
		return err
	}
	_, errs := m.store.Get(m.Context(), old...)
	purged := 0
	for i, err := range errs {
		if errors.Is(err, delivery.ErrNotFound) {
			purged++
			m.records = slices.DeleteFunc(m.records, func(record delivery.Record) bool { return record.ID == old[i] })
		}
	}
	if purged != want {
		return fmt.Errorf("%d of what may be purged is gone, want %d", purged, want)
	}
	return nil
}

// purgeAll removes the records that a walk leaves.
func (m *recordModel) purgeAll() error {
	m.now = m.now.Add(time.Hour)
	updates := make([]delivery.Update, len(m.records))
	for i := range m.records {
		updates[i] = delivery.Update{ID: m.records[i].ID, Status: delivery.StatusFailed, Generation: 1000, At: m.now}
	}
	m.store.Update(m.Context(), updates...) // late for records that are final, which can be purged as they are
	want := len(m.records)
	m.records = nil
	got, err := 0, error(nil)
	for _, queue := range []string{storeQueue, "other"} {
		n, failure := m.store.Purge(m.Context(), queue, m.now.Add(time.Second), want)
		got, err = got+n, errors.Join(err, failure)
	}
	return checkCount("purged at the walk's end", got, want, err)
}

// checkCount returns err, or how a count differs from the one wanted.
func checkCount(what string, got, want int, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("%d were %s, want %d", got, what, want)
	}
	return err
}

// check compares the records, the counts and the next due time.
func (m *recordModel) check() error {
	if m.Failed() {
		return errors.New("has failed before")
	}
	got, errs := m.store.Get(m.Context(), idsOf(m.records)...)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i := range m.records {
		if err := recordDifferences(&m.records[i], &got[i]); err != nil {
			return fmt.Errorf("record %s: %w", got[i].ID, err)
		}
	}
	m.checkStats(statsOf(m.records))
	statuses, queue := []delivery.Status{m.randomStatus(), m.randomStatus()}, m.randomQueue()
	var due time.Time
	for i := range m.records {
		record := &m.records[i]
		if record.Queue == queue && slices.Contains(statuses, record.Status) && !record.DueAt.IsZero() && (due.IsZero() || record.DueAt.Before(due)) {
			due = record.DueAt
		}
	}
	m.checkNextDueOf(queue, due, statuses...)
	if m.Failed() {
		return errors.New("see above")
	}
	return nil
}

// compareErrors returns how the errors of a call differ from those wanted.
func (m *recordModel) compareErrors(errs []error, want ...error) error {
	if errs == nil && errors.Join(want...) == nil {
		return nil
	}
	if len(errs) != len(want) {
		return fmt.Errorf("%d errors (%s), want %d (%s)", len(errs), fmt.Sprint(errs), len(want), fmt.Sprint(want))
	}
	for i := range want {
		if !sameError(want[i], errs[i]) {
			return fmt.Errorf("error %d is %s, want %s", i, fmt.Sprint(errs[i]), fmt.Sprint(want[i]))
		}
	}
	return nil
}
