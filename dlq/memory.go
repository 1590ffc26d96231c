package dlq

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// DefaultMaxEntries is the default of MemoryConfig.MaxEntries.
const DefaultMaxEntries = 100_000

// MemoryConfig configures a Memory.
type MemoryConfig struct {
	// MaxEntries bounds how many entries are kept. Default DefaultMaxEntries, at
	// least 1. A Put beyond it is ErrFull, and puts none of its entries. A
	// consumer then leaves its message unacknowledged. Nothing is dropped to make
	// room.
	MaxEntries int
}

// Memory is a Store and a JobStore in the process's memory. It is for tests,
// and for hosts that can bear to lose their dead letters with the process. The
// zero Memory has the default configuration.
type Memory struct {
	config MemoryConfig
	fault  error

	mu    sync.RWMutex
	items map[string]*item
	order itemOrder
	jobs  map[string]Job
}

var _ Store = (*Memory)(nil)

// item is an entry with its claim. The entry is never changed in place, so that
// it may be cloned without the lock.
type item struct {
	entry    Entry
	token    string // of the claim; empty when there is none
	until    time.Time
	replaced bool // since it was claimed
}

func (i *item) claimed(now time.Time) bool { return i.token != "" && now.Before(i.until) }

func compareItem(i *item, position delivery.Position) int {
	return positionOf(&i.entry).Compare(position)
}

// NewMemory returns an empty Memory. If config can't be used, Err and every
// method return what is wrong with it.
func NewMemory(config MemoryConfig) *Memory {
	m := &Memory{config: config}
	if config.MaxEntries < 0 {
		m.fault = fmt.Errorf("%w: MaxEntries is %d, want at least 1", ErrConfig, config.MaxEntries)
	}
	return m
}

// Err returns what is wrong with the config, as ErrConfig, or nil.
func (m *Memory) Err() error { return m.fault }

func (m *Memory) usable(ctx context.Context) error {
	return cmp.Or(m.fault, ctx.Err())
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, entries ...Entry) error {
	if err := m.usable(ctx); err != nil {
		return err
	}
	clones := make([]Entry, len(entries))
	for i := range entries {
		if entries[i].ID == "" {
			return fmt.Errorf("%w: Entry.ID is empty", ErrInvalid)
		}
		clones[i] = entries[i].Clone()
		clones[i].DeadAt = microseconds(clones[i].DeadAt)
		clones[i].FirstFailedAt = microseconds(clones[i].FirstFailedAt)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	added := make(map[string]struct{})
	for i := range clones {
		if m.items[clones[i].ID] == nil {
			added[clones[i].ID] = struct{}{}
		}
	}
	if limit := cmp.Or(m.config.MaxEntries, DefaultMaxEntries); len(added) > 0 && len(m.items)+len(added) > limit {
		return fmt.Errorf("%w: %d of %d entries are taken", ErrFull, len(m.items), limit)
	}
	if m.items == nil {
		m.items = make(map[string]*item)
	}
	for i := range clones {
		m.put(clones[i])
	}
	return nil
}

func (m *Memory) put(entry Entry) {
	next := &item{entry: entry}
	if old := m.items[entry.ID]; old != nil {
		next.token, next.until, next.replaced = old.token, old.until, true
		m.drop(old)
	}
	m.items[entry.ID] = next
	m.order.insert(next)
}

func (m *Memory) drop(old *item) {
	delete(m.items, old.entry.ID)
	m.order.remove(old)
}

// each calls do for every id that has an entry, under the lock, and returns the
// errors as Store has them.
func (m *Memory) each(ctx context.Context, ids []string, do func(i int, it *item) error) []error {
	if err := m.usable(ctx); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for i, id := range ids {
		err := ErrNotFound
		if it := m.items[id]; it != nil {
			err = do(i, it)
		}
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(ids))
		}
		errs[i] = err
	}
	return errs
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, ids ...string) ([]Entry, []error) {
	entries := make([]Entry, len(ids))
	errs := m.each(ctx, ids, func(i int, it *item) error {
		entries[i] = it.entry
		return nil
	})
	return cloned(entries), errs
}

// cloned replaces entries by copies that share nothing with the store.
func cloned(entries []Entry) []Entry {
	for i := range entries {
		entries[i] = entries[i].Clone()
	}
	return entries
}

// List implements Store.
func (m *Memory) List(ctx context.Context, query Query) (Page, error) {
	if err := m.usable(ctx); err != nil {
		return Page{}, err
	}
	scan, err := query.Scan()
	if err != nil {
		return Page{}, err
	}
	page := Page{Entries: []Entry{}}
	m.mu.RLock()
	step := m.order.previous
	if scan.Order == OldestFirst {
		step = m.order.next
	}
	for at := m.begin(&scan); ; at = step(at) {
		it := m.order.item(at)
		if it == nil {
			break
		}
		entry := &it.entry
		if !scan.Match(entry) {
			continue
		}
		if len(page.Entries) == scan.Limit {
			page.Next = scan.Cursor(&page.Entries[scan.Limit-1])
			break
		}
		page.Entries = append(page.Entries, *entry)
	}
	m.mu.RUnlock()
	page.Entries = cloned(page.Entries)
	return page, nil
}

// begin returns the place from which the scan goes on.
func (m *Memory) begin(scan *Scan) place {
	if scan.After.ID == "" {
		if scan.Order == NewestFirst {
			return m.order.previous(m.order.end())
		}
		return place{}
	}
	at, found := m.order.find(scan.After)
	switch {
	case scan.Order == NewestFirst:
		return m.order.previous(at)
	case found:
		return m.order.next(at)
	}
	return at
}

// Count implements Store.
func (m *Memory) Count(ctx context.Context, filter Filter) (int, error) {
	if err := m.usable(ctx); err != nil {
		return 0, err
	}
	if err := CheckFilter(&filter); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if filter == (Filter{}) {
		return len(m.items), nil
	}
	count := 0
	for it := range m.order.all {
		if filter.Match(&it.entry) {
			count++
		}
	}
	return count, nil
}

// Stats implements Store.
func (m *Memory) Stats(ctx context.Context, top int) (Stats, error) {
	if err := m.usable(ctx); err != nil {
		return Stats{}, err
	}
	if err := CheckTop(top); err != nil {
		return Stats{}, err
	}
	stats := Stats{ByReason: make(map[delivery.Reason]int), ByType: make(map[string]int)}
	groups := make(map[string]*FingerprintCount)
	m.mu.RLock()
	stats.Total = len(m.items)
	if stats.Total > 0 {
		stats.Oldest = m.order.item(place{}).entry.DeadAt
	}
	for it := range m.order.all {
		stats.ByReason[it.entry.Reason]++
		stats.ByType[it.entry.Envelope.Type]++
		group := groups[it.entry.Fingerprint]
		if group == nil {
			group = &FingerprintCount{Fingerprint: it.entry.Fingerprint}
			groups[it.entry.Fingerprint] = group
		}
		group.Count++
		group.Example = it.entry.Error
	}
	m.mu.RUnlock()

	stats.Fingerprints = make([]FingerprintCount, 0, len(groups))
	for _, group := range groups {
		stats.Fingerprints = append(stats.Fingerprints, *group)
	}
	slices.SortFunc(stats.Fingerprints, func(a, b FingerprintCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	stats.Fingerprints = stats.Fingerprints[:min(top, len(stats.Fingerprints))]
	return stats, nil
}

// Claim implements Store.
func (m *Memory) Claim(ctx context.Context, claim Claim, ids ...string) ([]Entry, []error) {
	entries := make([]Entry, len(ids))
	if err := claim.Validate(); err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	errs := m.each(ctx, ids, func(i int, it *item) error {
		if it.claimed(claim.Now) && it.token != claim.Token {
			return ErrClaimed
		}
		it.token, it.until, it.replaced = claim.Token, claim.Now.Add(claim.Lease), false
		entries[i] = it.entry
		return nil
	})
	return cloned(entries), errs
}

// Release implements Store.
func (m *Memory) Release(ctx context.Context, token string, ids ...string) []error {
	return m.each(ctx, ids, func(_ int, it *item) error {
		if token == "" || it.token != token {
			return ErrClaimLost
		}
		it.token, it.until, it.replaced = "", time.Time{}, false
		return nil
	})
}

// Remove implements Store.
func (m *Memory) Remove(ctx context.Context, token string, ids ...string) []error {
	return m.each(ctx, ids, func(_ int, it *item) error {
		switch {
		case token == "" || it.token != token:
			return ErrClaimLost
		case it.replaced:
			return ErrReplaced
		}
		m.drop(it)
		return nil
	})
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, now time.Time, ids ...string) []error {
	return m.each(ctx, ids, func(_ int, it *item) error {
		if it.claimed(now) {
			return ErrClaimed
		}
		m.drop(it)
		return nil
	})
}

// purgeChunk is how many entries Purge looks at before it lets others go on.
const purgeChunk = 1000

// Purge implements Store. It deletes up to a thousand at a time, so that others
// need not wait long. When ctx ends, it returns how many it has deleted until
// then.
func (m *Memory) Purge(ctx context.Context, before, now time.Time) (int, error) {
	purged, after, more := 0, delivery.Position{}, true
	for more {
		if err := m.usable(ctx); err != nil {
			return purged, err
		}
		var count int
		count, after, more = m.purgeSome(after, before, now)
		purged += count
	}
	return purged, nil
}

// purgeSome looks at the entries behind after, and returns whether there are more.
func (m *Memory) purgeSome(after delivery.Position, before, now time.Time) (purged int, last delivery.Position, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var old []*item
	at := place{}
	if after.ID != "" {
		at = m.begin(&Scan{Order: OldestFirst, After: after})
	}
	for seen := 0; ; seen++ {
		it := m.order.item(at)
		if it == nil || !it.entry.DeadAt.Before(before) {
			break
		}
		if more = seen == purgeChunk; more {
			break
		}
		if last = positionOf(&it.entry); !it.claimed(now) {
			old = append(old, it)
		}
		at = m.order.next(at)
	}
	for _, it := range old {
		m.drop(it)
	}
	return len(old), last, more
}
