package sqlstore

import (
	"context"
	"slices"

	"github.com/esh3artech/barid/dlq"
)

// deadLetterAction is a method of dlq.Store that writes.
type deadLetterAction int

const (
	putDeadLetters deadLetterAction = iota
	claimDeadLetters
	releaseDeadLetters
	removeDeadLetters
	deleteDeadLetters
	purgeDeadLetters
)

// deadLetterCall is one call for some dead letters on its way through the
// writer, with the result for each. Times are in microseconds.
type deadLetterCall struct {
	action deadLetterAction
	keys   []string
	rows   []encodedDeadLetter // to put
	token  string
	now    int64
	until  int64 // the end of a claim
	before int64 // purge deletes what is older

	errs  []error
	found []*deadLetterContent // what was claimed
}

// deadLetterState is what is stored of a dead letter beside its content.
type deadLetterState struct {
	there    bool
	deadAt   int64
	token    string // empty when not claimed
	until    int64
	replaced bool // since it was claimed
}

func (s deadLetterState) claimed(now int64) bool { return s.token != "" && now < s.until }

// apply executes a call on its dead letter i, as dlq.Store says, and returns
// the state after it.
func (s deadLetterState) apply(c *deadLetterCall, i int) (deadLetterState, error) {
	if c.action == putDeadLetters {
		return deadLetterState{there: true, deadAt: c.rows[i].deadAt, token: s.token, until: s.until, replaced: s.token != ""}, nil
	}
	if !s.there {
		return s, dlq.ErrNotFound
	}
	switch c.action {
	case putDeadLetters:
	case claimDeadLetters:
		if s.claimed(c.now) && s.token != c.token {
			return s, dlq.ErrClaimed
		}
		s.token, s.until, s.replaced = c.token, c.until, false
		return s, nil
	case releaseDeadLetters, removeDeadLetters:
		switch {
		case c.token == "" || s.token != c.token:
			return s, dlq.ErrClaimLost
		case c.action == releaseDeadLetters:
			s.token, s.until, s.replaced = "", 0, false
			return s, nil
		case s.replaced:
			return s, dlq.ErrReplaced
		}
	case deleteDeadLetters, purgeDeadLetters:
		switch {
		case s.claimed(c.now):
			return s, dlq.ErrClaimed
		case c.action == purgeDeadLetters && s.deadAt >= c.before:
			return s, dlq.ErrNotFound // it was put again since purge looked
		}
	}
	return deadLetterState{}, nil
}

// deadLetterItem is one dead letter of a call.
type deadLetterItem struct {
	call *deadLetterCall
	at   int
}

func (i deadLetterItem) key() string { return i.call.keys[i.at] }

// run executes calls in the order in which they came.
func (l *deadLetterTables) run(ctx context.Context, q querier, calls []*deadLetterCall) error {
	var items []deadLetterItem
	for _, c := range calls {
		c.errs = make([]error, len(c.keys))
		c.found = make([]*deadLetterContent, len(c.keys))
		for i := range c.keys {
			items = append(items, deadLetterItem{call: c, at: i})
		}
	}
	for len(items) > 0 {
		lost, err := l.applyItems(ctx, q, items)
		if err != nil {
			return err
		}
		items = slices.DeleteFunc(items, func(i deadLetterItem) bool { return !lost[i.key()] })
	}
	return nil
}

// deadLetterRow is a dead letter in the course of applyItems.
type deadLetterRow struct {
	before, now deadLetterState
	first       *encodedDeadLetter // the first entry that is put, or nil
	inserted    bool               // first was inserted, and there was none before
	put         *encodedDeadLetter // the last entry that was put, unless it was deleted
	claimed     []deadLetterItem   // the claims of what was there before
}

// applyItems executes calls, and returns the keys for which it could not.
//
// Entries that are put are inserted first, unless they are there. Those that
// are there are locked after that. Both happen in the order of keys. A
// transaction that inserts waits only for others that insert greater keys, or
// that lock. One that locks waits only for others that lock greater keys. So
// there is no deadlock.
func (l *deadLetterTables) applyItems(ctx context.Context, q querier, items []deadLetterItem) (lost map[string]bool, err error) {
	rows := make(map[string]*deadLetterRow, len(items))
	names := make([]string, 0, len(items))
	for _, item := range items {
		r := rows[item.key()]
		if r == nil {
			r = new(deadLetterRow)
			rows[item.key()] = r
			names = append(names, item.key())
		}
		if item.call.action == putDeadLetters && r.first == nil {
			r.first = &item.call.rows[item.at]
		}
	}
	slices.Sort(names)
	if err := l.insert(ctx, q, names, rows); err != nil {
		return nil, err
	}
	if err := l.lock(ctx, q, names, rows); err != nil {
		return nil, err
	}
	for _, item := range items {
		key := item.key()
		if r := rows[key]; r.first == nil || r.inserted || r.before.there {
			r.applyItem(item)
			continue
		}
		// It was deleted after the insert had found it.
		if lost == nil {
			lost = make(map[string]bool)
		}
		lost[key] = true
	}
	if err := l.read(ctx, q, names, rows); err != nil {
		return nil, err
	}
	return lost, l.write(ctx, q, names, rows)
}

// insert inserts the heads of entries that are put and not there yet.
func (l *deadLetterTables) insert(ctx context.Context, q querier, names []string, rows map[string]*deadLetterRow) error {
	var heads []row
	for _, name := range names {
		if first := rows[name].first; first != nil {
			heads = append(heads, first.headWith(deadLetterState{}))
		}
	}
	added, err := l.heads.add(ctx, q, heads)
	for i := range added {
		rows[string(heads[i].key())].inserted = added[i]
	}
	return err
}

func (l *deadLetterTables) lock(ctx context.Context, q querier, names []string, rows map[string]*deadLetterRow) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return rows[name].inserted })
	if len(names) == 0 {
		return nil
	}
	return l.heads.dialect.queryByKeys(ctx, q, l.locked, keysOf(names), func(answer scanner) error {
		var key string
		state := deadLetterState{there: true}
		var replaced intoFlag
		err := answer.Scan((*intoString)(&key), &state.deadAt, (*intoString)(&state.token), &state.until, &replaced)
		state.replaced = bool(replaced)
		if r := rows[key]; r != nil {
			r.before, r.now = state, state
		}
		return err
	})
}

// applyItem executes a call on one dead letter.
func (r *deadLetterRow) applyItem(item deadLetterItem) {
	c, i := item.call, item.at
	r.now, c.errs[i] = r.now.apply(c, i)
	switch {
	case c.errs[i] != nil:
	case c.action == putDeadLetters:
		r.put = &c.rows[i]
	case c.action == claimDeadLetters && r.put != nil:
		c.found[i] = r.put.content
	case c.action == claimDeadLetters:
		r.claimed = append(r.claimed, item)
	case !r.now.there:
		r.put = nil
	}
}

// read reads the contents of what was claimed.
func (l *deadLetterTables) read(ctx context.Context, q querier, names []string, rows map[string]*deadLetterRow) error {
	var wanted []string
	for _, name := range names {
		if len(rows[name].claimed) > 0 {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return l.heads.dialect.queryByKeys(ctx, q, l.whole, keysOf(wanted), func(answer scanner) error {
		content, err := scanContent(answer)
		if r := rows[string(content.id)]; r != nil {
			for _, item := range r.claimed {
				item.call.found[item.at] = content
			}
		}
		return err
	})
}

// write stores what the calls have made of the rows.
func (l *deadLetterTables) write(ctx context.Context, q querier, names []string, rows map[string]*deadLetterRow) error {
	var add, heads, contents, claims []row
	var remove [][]byte
	for _, name := range names {
		switch r := rows[name]; {
		case r.now.there && r.inserted:
			add = append(add, r.put.content.row())
			if r.put != r.first || r.now.token != "" {
				heads = append(heads, r.put.headWith(r.now))
			}
		case r.now.there && r.put != nil:
			heads = append(heads, r.put.headWith(r.now))
			contents = append(contents, r.put.content.row())
		case !r.now.there && (r.inserted || r.before.there):
			remove = append(remove, []byte(name))
		case r.now != r.before:
			claims = append(claims, append(row{[]byte(name)}, r.now.claim()...))
		}
	}
	if len(remove) > 0 {
		for _, t := range []*table{l.heads, l.contents} {
			if err := t.dialect.deleteByKeys(ctx, q, t.name, "id", remove); err != nil {
				return err
			}
		}
	}
	for _, changed := range []struct {
		table *table
		rows  []row
	}{{l.heads, heads}, {l.contents, contents}, {l.claims, claims}} {
		if err := changed.table.change(ctx, q, changed.rows); err != nil {
			return err
		}
	}
	_, err := l.contents.add(ctx, q, add)
	return err
}

// headWith is the row of heads with a claim.
func (r *encodedDeadLetter) headWith(s deadLetterState) row {
	return append(r.head[:len(r.head):len(r.head)], s.claim()...)
}

func (s deadLetterState) claim() row { return row{bytesOf(s.token), s.until, flagOf(s.replaced)} }
