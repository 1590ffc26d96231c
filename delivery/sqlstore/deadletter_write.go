package sqlstore

import (
	"context"
	"slices"

	"github.com/esh3artech/barid/dlq"
)

type letterAction int

const (
	putLetters letterAction = iota
	claimLetters
	releaseLetters
	removeLetters
	deleteLetters
	purgeLetters
)

// letterCall is one action on some dead letters, and what came of each. Times
// are in microseconds.
type letterCall struct {
	action letterAction
	keys   []string
	rows   []letterRows // to put
	token  string
	now    int64
	until  int64 // the end of a claim
	before int64 // what is purged is older

	errs  []error
	found []*letterContent // what was claimed
}

// letterState is what is known of a dead letter.
type letterState struct {
	there    bool
	deadAt   int64
	token    string // empty when not claimed
	until    int64
	replaced bool // since it was claimed
}

func (s letterState) claimed(now int64) bool { return s.token != "" && now < s.until }

// step carries a call's action out on its i-th dead letter, as dlq.Store says,
// and returns the state after it.
func (s letterState) step(c *letterCall, i int) (letterState, error) {
	if c.action == putLetters {
		return letterState{there: true, deadAt: c.rows[i].deadAt, token: s.token, until: s.until, replaced: s.token != ""}, nil
	}
	if !s.there {
		return s, dlq.ErrNotFound
	}
	switch c.action {
	case putLetters:
	case claimLetters:
		if s.claimed(c.now) && s.token != c.token {
			return s, dlq.ErrClaimed
		}
		s.token, s.until, s.replaced = c.token, c.until, false
		return s, nil
	case releaseLetters, removeLetters:
		switch {
		case c.token == "" || s.token != c.token:
			return s, dlq.ErrClaimLost
		case c.action == releaseLetters:
			s.token, s.until, s.replaced = "", 0, false
			return s, nil
		case s.replaced:
			return s, dlq.ErrReplaced
		}
	case deleteLetters, purgeLetters:
		switch {
		case s.claimed(c.now):
			return s, dlq.ErrClaimed
		case c.action == purgeLetters && s.deadAt >= c.before:
			return s, dlq.ErrNotFound // not what was to be purged any more
		}
	}
	return letterState{}, nil
}

// letterItem is one dead letter of a call.
type letterItem struct {
	call *letterCall
	at   int
}

func (i letterItem) key() string { return i.call.keys[i.at] }

// run carries calls out, in the order in which they came.
func (l *letters) run(ctx context.Context, q querier, calls []*letterCall) error {
	var items []letterItem
	for _, c := range calls {
		c.errs = make([]error, len(c.keys))
		c.found = make([]*letterContent, len(c.keys))
		for i := range c.keys {
			items = append(items, letterItem{call: c, at: i})
		}
	}
	for len(items) > 0 {
		lost, err := l.pass(ctx, q, items)
		if err != nil {
			return err
		}
		items = slices.DeleteFunc(items, func(i letterItem) bool { return !lost[i.key()] })
	}
	return nil
}

// letterRow is a dead letter in the course of a pass.
type letterRow struct {
	before, now letterState
	first       *letterRows  // what is put first, if anything
	inserted    bool         // first was inserted by this pass, and before that there was none
	put         *letterRows  // what was put last, until it is deleted
	claimed     []letterItem // those who want it as it was before the pass
}

// pass carries steps out, and returns the keys that it could not get hold of.
//
// What is put is inserted first, unless it is there, and what is there is locked
// after that, each in the order of keys. Who inserts waits for others that
// insert greater keys, or lock; who locks, for others that lock greater keys: so
// that nobody waits in a circle.
func (l *letters) pass(ctx context.Context, q querier, items []letterItem) (lost map[string]bool, err error) {
	rows := make(map[string]*letterRow, len(items))
	names := make([]string, 0, len(items))
	for _, item := range items {
		r := rows[item.key()]
		if r == nil {
			r = new(letterRow)
			rows[item.key()] = r
			names = append(names, item.key())
		}
		if item.call.action == putLetters && r.first == nil {
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
			r.take(item)
			continue
		}
		// Somebody has deleted it after it was found not to be new.
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

// insert inserts the heads of what is put and not there yet.
func (l *letters) insert(ctx context.Context, q querier, names []string, rows map[string]*letterRow) error {
	var heads []row
	for _, name := range names {
		if first := rows[name].first; first != nil {
			heads = append(heads, first.headWith(letterState{}))
		}
	}
	added, err := l.heads.add(ctx, q, heads)
	for i := range added {
		rows[string(heads[i].key())].inserted = added[i]
	}
	return err
}

func (l *letters) lock(ctx context.Context, q querier, names []string, rows map[string]*letterRow) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return rows[name].inserted })
	if len(names) == 0 {
		return nil
	}
	return l.heads.dialect.fetch(ctx, q, l.locked, keysOf(names), func(answer scanner) error {
		var key string
		state := letterState{there: true}
		var replaced intoFlag
		err := answer.Scan((*intoString)(&key), &state.deadAt, (*intoString)(&state.token), &state.until, &replaced)
		state.replaced = bool(replaced)
		if r := rows[key]; r != nil {
			r.before, r.now = state, state
		}
		return err
	})
}

// take carries out one step.
func (r *letterRow) take(item letterItem) {
	c, i := item.call, item.at
	r.now, c.errs[i] = r.now.step(c, i)
	switch {
	case c.errs[i] != nil:
	case c.action == putLetters:
		r.put = &c.rows[i]
	case c.action == claimLetters && r.put != nil:
		c.found[i] = r.put.content
	case c.action == claimLetters:
		r.claimed = append(r.claimed, item)
	case !r.now.there:
		r.put = nil
	}
}

// read reads what was claimed.
func (l *letters) read(ctx context.Context, q querier, names []string, rows map[string]*letterRow) error {
	var wanted []string
	for _, name := range names {
		if len(rows[name].claimed) > 0 {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return l.heads.dialect.fetch(ctx, q, l.whole, keysOf(wanted), func(answer scanner) error {
		content, err := scanContent(answer)
		if r := rows[string(content.id)]; r != nil {
			for _, item := range r.claimed {
				item.call.found[item.at] = content
			}
		}
		return err
	})
}

// write leaves behind what the steps have made of the rows.
func (l *letters) write(ctx context.Context, q querier, names []string, rows map[string]*letterRow) error {
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
			if err := t.dialect.remove(ctx, q, t.name, "id", remove); err != nil {
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
func (r *letterRows) headWith(s letterState) row {
	return append(r.head[:len(r.head):len(r.head)], s.claim()...)
}

func (s letterState) claim() row { return row{bytesOf(s.token), s.until, flagOf(s.replaced)} }
