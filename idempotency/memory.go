package idempotency

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
)

// MemoryConfig bounds a Memory. The zero value is usable.
type MemoryConfig struct {
	// MaxKeys bounds how many keys are known at once: leased, fenced and done ones
	// together. It has to be more than the keys that come within a window: the
	// default has room for 11.6 keys a second over 24 hours, and 100 a second need
	// 8,640,000. A key takes about 140 bytes, however long it is. A token of more
	// than 42 bytes takes its own length in addition. Default 1,000,000.
	MaxKeys int
	// Shards is the number of parts, each with a lock of its own, that the keys are
	// spread over. It is rounded up to a power of two; at most 65,536. Default: four
	// for each processor, or more where a part would get over 65,536 keys.
	Shards int
	// Logger gets a warning when four fifths of MaxKeys are known, and at most once a
	// minute how many keys were forgotten before their time. Nil discards.
	Logger *slog.Logger
}

const (
	defaultMaxKeys = 1_000_000
	maxShards      = 1 << 16
	// shardKeys bounds how long a shard's lock is held while its index grows: for
	// a fraction of a millisecond.
	shardKeys = 1 << 16
)

func (c MemoryConfig) withDefaults() MemoryConfig {
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultMaxKeys
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Shards == 0 {
		c.Shards = min(max(4*runtime.GOMAXPROCS(0), c.MaxKeys/shardKeys), maxShards)
	}
	return c
}

func (c MemoryConfig) validate() error {
	var faults []error
	if c.MaxKeys < 1 {
		faults = append(faults, fmt.Errorf("%w: MaxKeys is %d, want at least 1", ErrConfig, c.MaxKeys))
	}
	if c.Shards < 1 || c.Shards > maxShards {
		faults = append(faults, fmt.Errorf("%w: Shards is %d, want 1 to %d", ErrConfig, c.Shards, maxShards))
	}
	return errors.Join(faults...)
}

// Memory is a Store within one process: what it knows ends with the process, and no
// other process sees it. It has no goroutine and need not be closed. Keys that have
// expired count as absent, and each new key removes a few of them.
//
// It is bounded. When MaxKeys keys are known and none of them has expired, Claim of a
// new key forgets the key that has been done for the longest time, although its
// window has not ended, because otherwise all work would stand still. A copy of that
// work that comes so late runs once more. Forgotten counts such keys, and Logger is
// told of them. Keys that are leased or fenced are never forgotten. Where there are
// no others, Claim returns an error that matches ErrFull and ErrUnavailable.
//
// Keys themselves are not kept, but a hash of 128 bits with secret seeds. Two keys
// with the same hash would be taken for one. With n keys known, the chance that there
// are any such two is n*n / 2^129: 1 in 10^26 for a million.
type Memory struct {
	config MemoryConfig
	fault  error
	seeds  [2]maphash.Seed
	// base is what expiries are counted from, on the monotonic clock: setting
	// the wall clock neither ends a lease nor lengthens it.
	base   time.Time
	shards []shard
	_      [64]byte // separates what all claims read from what they write, by a cache line
	known  atomic.Int64
	pressure
}

// pressure is what a Memory tells of its lack of room.
type pressure struct {
	completed atomic.Int64 // numbers the keys that became done
	forgotten atomic.Int64
	filling   atomic.Bool  // somebody was told
	told      atomic.Int64 // when somebody was told of forgotten keys, 0: never
}

const forgottenInterval = time.Minute

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory. It doesn't fail: a faulty config is returned by
// Err, and by every use.
func NewMemory(config MemoryConfig) *Memory {
	config = config.withDefaults()
	m := &Memory{config: config, fault: config.validate(), base: time.Now()}
	if m.fault == nil {
		m.shards = make([]shard, 1<<bits.Len(uint(config.Shards-1)))
		m.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	}
	return m
}

// Err is nil, or says why the Memory can't be used; it matches ErrConfig.
func (m *Memory) Err() error {
	if m == nil || m.shards == nil && m.fault == nil {
		return fmt.Errorf("%w: Memory is empty, want one from NewMemory", ErrConfig)
	}
	return m.fault
}

// Len is how many keys are known, including those that have expired and are not
// removed yet.
func (m *Memory) Len() int {
	if m == nil {
		return 0
	}
	return int(m.known.Load())
}

// Forgotten is how many done keys were forgotten before their time, because there
// was no room. It is 0 as long as MaxKeys is enough.
func (m *Memory) Forgotten() int64 {
	if m == nil {
		return 0
	}
	return m.forgotten.Load()
}

// Claim implements Store.
func (m *Memory) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (Answer, error) {
	if err := m.usable(ctx, "claim", key, token, lease); err != nil {
		return Answer{}, err
	}
	d, now := m.digest(key), m.now()
	answer, room := m.claim(d, now, token, attempt, lease)
	for !room && (m.sweep(now) || m.forget(now)) { // another claim may take the room first
		answer, room = m.claim(d, now, token, attempt, lease)
	}
	m.tell(ctx, now)
	if !room {
		return Answer{}, &UnavailableError{Op: "claim", Err: fmt.Errorf("%w: MaxKeys is %d", ErrFull, m.config.MaxKeys)}
	}
	return answer, nil
}

// claim is one try. room is false when the key is new and there is no room for it.
func (m *Memory) claim(d digest, now int64, token string, attempt int, lease time.Duration) (answer Answer, room bool) {
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := m.live(s, d, now)
	if found == nil {
		// At most two go for one that comes, so that expired ones don't accumulate.
		m.known.Add(-int64(s.sweep(now, 2, 8)))
		if m.known.Add(1) > int64(m.config.MaxKeys) {
			m.known.Add(-1)
			return Answer{}, false
		}
		s.insert(d, leased, token, after(now, lease))
		return Answer{State: Claimed, Holder: token}, true
	}
	switch {
	case found.status == done:
		return Answer{State: Done, Holder: s.token(found)}, true
	case found.status == leased && !s.hasToken(found, token):
		return Answer{State: Busy, Holder: s.token(found)}, true
	case found.status == fenced && attempt < found.attempt:
		return Answer{State: Stale, Holder: s.token(found)}, true
	}
	s.set(found, leased, token, after(now, lease))
	return Answer{State: Claimed, Holder: token}, true
}

// Renew implements Store.
func (m *Memory) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	if err := m.usable(ctx, "renew", key, token, lease); err != nil {
		return err
	}
	d, now := m.digest(key), m.now()
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := m.live(s, d, now)
	if found == nil || found.status != leased || !s.hasToken(found, token) {
		return ErrLost
	}
	s.set(found, leased, token, after(now, lease))
	return nil
}

// Complete implements Store. A key that has expired becomes done even when there is
// no room for another key, so that work that is done is not forgotten.
func (m *Memory) Complete(ctx context.Context, key, token string, window time.Duration) (Completion, error) {
	if err := m.usable(ctx, "complete", key, token, window); err != nil {
		return 0, err
	}
	d, now := m.digest(key), m.now()
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := m.live(s, d, now)
	switch {
	case found == nil:
		m.known.Add(1 - int64(s.sweep(now, 2, 8)))
		s.link(s.insert(d, done, token, after(now, window)), m.completed.Add(1))
		return Late, nil
	case found.status == done:
		return InTime, nil
	case !s.hasToken(found, token):
		return 0, ErrLost
	}
	s.set(found, done, token, after(now, window))
	s.link(found, m.completed.Add(1))
	return InTime, nil
}

// Schedule implements Store.
func (m *Memory) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	if err := m.usable(ctx, "schedule", key, token, ttl); err != nil {
		return err
	}
	d, now := m.digest(key), m.now()
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := m.live(s, d, now)
	if found == nil || found.status == done || !s.hasToken(found, token) {
		return ErrLost
	}
	found.attempt = attempt
	s.set(found, fenced, token, after(now, ttl))
	return nil
}

// Release implements Store.
func (m *Memory) Release(ctx context.Context, key, token string) error {
	if err := m.usable(ctx, "release", key, token, 1); err != nil {
		return err
	}
	d, now := m.digest(key), m.now()
	s := m.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := m.live(s, d, now)
	switch {
	case found == nil:
		return nil
	case found.status != leased || !s.hasToken(found, token):
		return ErrLost
	}
	s.remove(found)
	m.known.Add(-1)
	return nil
}

func (m *Memory) usable(ctx context.Context, op, key, token string, duration time.Duration) error {
	if err := m.Err(); err != nil {
		return &UnavailableError{Op: op, Err: err}
	}
	if err := Validate(key, token, duration); err != nil {
		return err
	}
	if ctx == nil {
		return fmt.Errorf("%w: context is nil", ErrInvalid)
	}
	return ctx.Err()
}

func (m *Memory) now() int64 { return int64(time.Since(m.base)) }

// after adds without wrapping around.
func after(now int64, d time.Duration) int64 {
	if sum := now + int64(d); sum > now {
		return sum
	}
	return math.MaxInt64
}

func (m *Memory) digest(key string) digest {
	return digest{high: maphash.String(m.seeds[0], key), low: maphash.String(m.seeds[1], key)}
}

func (m *Memory) shard(d digest) *shard { return &m.shards[d.low&uint64(len(m.shards)-1)] }

// live returns what is known of a key. It removes what has expired, and returns nil
// then.
func (m *Memory) live(s *shard, d digest, now int64) *record {
	found := s.find(d)
	if found == nil || found.expires > now {
		return found
	}
	s.remove(found)
	m.known.Add(-1)
	return nil
}

// sweep removes expired keys of all shards, a bounded number of each, and says
// whether there was any. Where there is none it costs a look at each shard.
func (m *Memory) sweep(now int64) bool {
	const perShard = 16
	removed := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		removed += s.sweep(now, perShard, math.MaxInt)
		s.mu.Unlock()
	}
	m.known.Add(-int64(removed))
	return removed > 0
}

// forget removes the key that has been done for the longest time, and says whether
// there was any. It costs a look at each shard.
func (m *Memory) forget(now int64) bool {
	var from *shard
	first := int64(math.MaxInt64)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		if r := s.oldestDone(); r != nil && r.order < first {
			from, first = s, r.order
		}
		s.mu.Unlock()
	}
	if from == nil {
		return false
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	// Another claim may have taken it. Then it has made room, too.
	if r := from.oldestDone(); r != nil && r.order == first {
		if r.expires > now {
			m.forgotten.Add(1)
		}
		from.remove(r)
		m.known.Add(-1)
	}
	return true
}

// tell warns of a lack of room: before it is there, and while keys are forgotten.
func (m *Memory) tell(ctx context.Context, now int64) {
	known, limit := m.known.Load(), int64(m.config.MaxKeys)
	switch filling := m.filling.Load(); {
	case filling && known < limit/2:
		m.filling.Store(false)
	case !filling && known >= limit-limit/5 && m.filling.CompareAndSwap(false, true):
		m.warn(ctx, "idempotency keys fill up", slog.Int64("keys", known), slog.Int64("max_keys", limit))
	}
	forgotten, told := m.forgotten.Load(), m.told.Load()
	if forgotten > 0 && (told == 0 || now-told >= int64(forgottenInterval)) && m.told.CompareAndSwap(told, max(now, 1)) {
		m.warn(ctx, "idempotency keys forgotten before their time", slog.Int64("forgotten", forgotten), slog.Int64("max_keys", limit))
	}
}

// warn does not let the host's handler decide the outcome of a claim.
func (m *Memory) warn(ctx context.Context, event string, attributes ...slog.Attr) {
	defer func() { _ = recover() }()
	m.config.Logger.LogAttrs(ctx, slog.LevelWarn, event, attributes...)
}
