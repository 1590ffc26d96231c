package sqlstore

import (
	"context"
	"crypto/sha256"
	"math"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
)

// Keys is an idempotency.Store in the database of a Store, whose transactions it
// shares: a mark and the record of a message that many workers write at the same
// time cost one commit together.
//
// Time is that of the process. Processes that share a database should have
// clocks that agree within a fraction of a lease. Expired keys are deleted a
// thousand or so at a time by whoever writes.
type Keys struct{ store *Store }

var (
	_ idempotency.Store = (*Keys)(nil)
	_ delivery.Pinger   = (*Keys)(nil)
)

// Keys returns the idempotency.Store.
func (s *Store) Keys() *Keys { return &Keys{store: s} }

// indexed is key as it stands in the index: as it is, or its SHA-256 when it is
// too long for one.
func indexed(key string) string {
	if len(key) <= maxIndexedBytes {
		return "k" + key
	}
	sum := sha256.Sum256([]byte(key))
	return "h" + string(sum[:])
}

// Ping implements delivery.Pinger.
func (k *Keys) Ping(ctx context.Context) error { return k.store.Ping(ctx) }

// Claim implements idempotency.Store.
func (k *Keys) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	step := &keyStep{action: claimKey, key: key, token: token, attempt: attempt, duration: lease}
	err := k.take(ctx, step)
	return step.answer, err
}

// Renew implements idempotency.Store.
func (k *Keys) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	return k.take(ctx, &keyStep{action: renewKey, key: key, token: token, duration: lease})
}

// Complete implements idempotency.Store.
func (k *Keys) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	step := &keyStep{action: completeKey, key: key, token: token, duration: window}
	err := k.take(ctx, step)
	return step.completion, err
}

// Schedule implements idempotency.Store.
func (k *Keys) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	return k.take(ctx, &keyStep{action: scheduleKey, key: key, token: token, attempt: attempt, duration: ttl})
}

// Release implements idempotency.Store.
func (k *Keys) Release(ctx context.Context, key, token string) error {
	return k.take(ctx, &keyStep{action: releaseKey, key: key, token: token, duration: 1})
}

// take has the step carried out. What it finds is the caller's only if the store
// answered.
func (k *Keys) take(ctx context.Context, step *keyStep) error {
	if err := idempotency.Validate(step.key, step.token, step.duration); err != nil {
		return err
	}
	private := *step
	private.key = indexed(step.key)
	if err := k.store.writer.perform(ctx, k.store.keys.steps, size{rows: 1}, &private); err != nil {
		return idempotency.Unavailable(ctx, step.action.String(), err)
	}
	*step = private
	return step.refusal
}

type keyAction int

const (
	claimKey keyAction = iota
	renewKey
	completeKey
	scheduleKey
	releaseKey
)

func (a keyAction) String() string {
	return [...]string{"claim", "renew", "complete", "schedule", "release"}[a]
}

// keyStep is one step on one key, and what came of it.
type keyStep struct {
	action     keyAction
	key, token string
	attempt    int
	duration   time.Duration

	answer     idempotency.Answer
	completion idempotency.Completion
	refusal    error
}

// keyPhase is the state that a key is in.
type keyPhase int64

const (
	keyAbsent keyPhase = iota
	keyLeased
	keyFenced
	keyDone
)

// keyState is what is known of a key.
type keyState struct {
	phase   keyPhase
	token   string
	attempt int   // that comes next, when fenced
	expires int64 // in microseconds
}

// at is the state at a time: what has expired is absent.
func (k keyState) at(now int64) keyState {
	if k.phase == keyAbsent || k.expires <= now {
		return keyState{}
	}
	return k
}

// step carries step out at a time, as the table of idempotency.Store says, and
// returns the state after it.
func (k keyState) step(step *keyStep, now int64) keyState {
	step.answer, step.completion, step.refusal = idempotency.Answer{}, idempotency.InTime, nil
	k = k.at(now)
	own := k.phase != keyAbsent && k.token == step.token
	becomes := func(phase keyPhase, attempt int) keyState {
		return keyState{phase: phase, token: step.token, attempt: attempt, expires: after(now, step.duration)}
	}
	switch step.action {
	case claimKey:
		return k.claimed(step, own, becomes)
	case renewKey:
		if k.phase == keyLeased && own {
			return becomes(keyLeased, 0)
		}
		step.refusal = idempotency.ErrLost
	case completeKey:
		switch {
		case k.phase == keyDone:
		case k.phase == keyAbsent:
			step.completion = idempotency.Late
			return becomes(keyDone, 0)
		case own:
			return becomes(keyDone, 0)
		default:
			step.refusal = idempotency.ErrLost
		}
	case scheduleKey:
		if own && (k.phase == keyLeased || k.phase == keyFenced) {
			return becomes(keyFenced, step.attempt)
		}
		step.refusal = idempotency.ErrLost
	case releaseKey:
		switch {
		case k.phase == keyAbsent:
		case own && k.phase == keyLeased:
			return keyState{}
		default:
			step.refusal = idempotency.ErrLost
		}
	}
	return k
}

func (k keyState) claimed(step *keyStep, own bool, becomes func(keyPhase, int) keyState) keyState {
	switch {
	case k.phase == keyDone:
		step.answer = idempotency.Answer{State: idempotency.Done, Holder: k.token}
	case k.phase == keyLeased && !own:
		step.answer = idempotency.Answer{State: idempotency.Busy, Holder: k.token}
	case k.phase == keyFenced && step.attempt < k.attempt:
		step.answer = idempotency.Answer{State: idempotency.Stale, Holder: k.token}
	default:
		step.answer = idempotency.Answer{State: idempotency.Claimed, Holder: step.token}
		return becomes(keyLeased, 0)
	}
	return k
}

// after is the time, in microseconds, that is d after now: the last there is for
// what lies beyond it.
func after(now int64, d time.Duration) int64 {
	micros := int64(d / time.Microsecond)
	if d%time.Microsecond != 0 {
		micros++
	}
	if micros > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + micros
}

// keys is how keys lie in their table.
type keys struct {
	*table
	steps *operation
	find  lookup

	sweeper sweeper
}

var keyColumns = []column{ //nolint:gochecknoglobals // a constant
	{"key", blob}, {"phase", integer}, {"token", blob}, {"attempt", integer}, {"expires_at", integer},
}

func newKeys(d *dialect, prefix string) *keys {
	k := &keys{table: newTable(d, prefix+"keys", keyColumns...)}
	k.addLocks = true
	k.find = d.lookup(named("k", keyColumns), k.name+" AS k", "k.key", "")
	k.steps = newOperation("idempotency", 50, k.run, nil)
	k.sweeper = sweeper{table: k.name, key: "key", every: sweepEvery}
	return k
}

// keyRow is a key in the course of a transaction.
type keyRow struct {
	before, now keyState
	fresh       keyState // what becomes of it if it is absent
	inserted    bool
}

// run carries steps out, in the order in which they came.
//
// One statement inserts what is absent and locks what is there, in the order of
// keys, so that transactions never wait for each other in a circle.
func (k *keys) run(ctx context.Context, q querier, steps []*keyStep) error {
	now := time.Now().UnixMicro()
	rows := make(map[string]*keyRow, len(steps))
	names := make([]string, 0, len(steps))
	for _, step := range steps {
		r := rows[step.key]
		if r == nil {
			r = new(keyRow)
			rows[step.key] = r
			names = append(names, step.key)
		}
		r.fresh = r.fresh.step(step, now)
	}
	slices.Sort(names)
	if err := k.insert(ctx, q, names, rows); err != nil {
		return err
	}
	if err := k.read(ctx, q, names, rows); err != nil {
		return err
	}
	for _, step := range steps {
		if r := rows[step.key]; !r.inserted {
			r.now = r.now.step(step, now)
		}
	}
	if err := k.write(ctx, q, names, rows); err != nil {
		return err
	}
	// What is swept is locked in another order than that of keys. After it no key
	// is waited for.
	return k.sweeper.sweep(ctx, q, k.dialect, now, len(steps))
}

func (k *keys) insert(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	fresh := make([]row, len(names))
	for i, name := range names {
		fresh[i] = rows[name].fresh.encode(name)
	}
	added, err := k.add(ctx, q, fresh)
	for i := range added {
		r := rows[names[i]]
		if r.inserted = added[i]; r.inserted {
			r.before, r.now = r.fresh, r.fresh
		}
	}
	return err
}

// read reads what was there, and is locked.
func (k *keys) read(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return rows[name].inserted })
	if len(names) == 0 {
		return nil
	}
	return k.dialect.fetch(ctx, q, k.find, keysOf(names), func(answer scanner) error {
		var name, token intoBytes
		var phase, attempt, expires int64
		if err := answer.Scan(&name, &phase, &token, &attempt, &expires); err != nil {
			return err
		}
		r := rows[string(name)]
		r.before = keyState{phase: keyPhase(phase), token: string(token), attempt: int(attempt), expires: expires}
		r.now = r.before
		return nil
	})
}

// write leaves behind what the steps have made of the keys.
func (k *keys) write(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	var change []row
	var remove [][]byte
	for _, name := range names {
		switch r := rows[name]; {
		case r.now.phase == keyAbsent:
			remove = append(remove, []byte(name))
		case r.now != r.before:
			change = append(change, r.now.encode(name))
		}
	}
	if len(remove) > 0 {
		if err := k.dialect.remove(ctx, q, k.name, "key", remove); err != nil {
			return err
		}
	}
	return k.change(ctx, q, change)
}

func (k keyState) encode(name string) row {
	return row{[]byte(name), int64(k.phase), []byte(k.token), int64(k.attempt), k.expires}
}
