package redisstate

import (
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/retry/lastfault"
)

// Fleet shares the states of one process's breakers with other processes, and
// lets an operator see and force them; see the package comment. Make it with
// New. It is safe for concurrent use.
type Fleet struct {
	client redis.UniversalClient
	config Config
	fault  error
	sha    string
	token  string // of leases

	running atomic.Bool
	urgent  chan struct{} // has an element while Run should sync without waiting for Every
	syncing chan struct{} // has an element while a Sync is under way
	sending chan struct{} // has an element until the client is done with a Sync's exchange

	lastFault lastfault.Fault // noted of every exchange

	mu      sync.Mutex
	members []*member
	names   map[string]bool
	failing bool // the last Sync failed for some breaker
	away    bool // and for all
}

// New makes a Fleet that uses the client. The client stays the caller's, to be
// closed after Run has returned. New doesn't fail and doesn't connect: a faulty
// config is returned by Err, and by every use.
func New(client redis.UniversalClient, config Config) *Fleet {
	config = config.withDefaults()
	fault := config.validate()
	if isNil(client) {
		fault = errors.Join(fmt.Errorf("%w: client is nil, want one of go-redis", ErrConfig), fault)
	}
	return &Fleet{
		client:  client,
		config:  config,
		fault:   fault,
		sha:     digest(),
		token:   rand.Text(),
		urgent:  make(chan struct{}, 1),
		syncing: make(chan struct{}, 1),
		sending: make(chan struct{}, 1),
		names:   make(map[string]bool),
	}
}

// isNil also knows a nil *redis.Client.
func isNil(client redis.UniversalClient) bool {
	if client == nil {
		return true
	}
	value := reflect.ValueOf(client)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Err is nil, or says why the Fleet can't be used; it matches ErrConfig.
func (f *Fleet) Err() error {
	switch {
	case f == nil:
		return fmt.Errorf("%w: Fleet is nil, want one made by New", ErrConfig)
	case f.fault != nil:
		return f.fault
	case f.client == nil:
		return fmt.Errorf("%w: Fleet is a zero value, want one made by New", ErrConfig)
	}
	return nil
}

// Share has Run share the breakers, each under its name with those of the same
// name in other instances, which should have the same breaker.Config.
//
// It refuses a breaker without a name, one of a breaker.Set (which may be
// forgotten and made anew at any time), one that can't be used, and a second one
// of a name. Then it shares none, and its error matches ErrConfig and names all
// that it refused.
//
// Share may be called before Run and during it. A breaker is shared for good.
func (f *Fleet) Share(breakers ...*breaker.Breaker) error {
	if err := f.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.shareable(breakers); err != nil {
		return err
	}
	for _, b := range breakers {
		m := &member{breaker: b, key: f.key(b.Name())}
		f.members = append(f.members, m)
		f.names[b.Name()] = true
		b.Watch(func(change breaker.Change) {
			if m.changed(change) {
				f.syncSoon()
			}
		})
	}
	return nil
}

// shareable says what is wrong with breakers. mu is held.
func (f *Fleet) shareable(breakers []*breaker.Breaker) error {
	var faults []error
	fault := func(i int, problem string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: breaker %d "+problem, append([]any{ErrConfig, i + 1}, args...)...))
	}
	names := make(map[string]bool)
	for i, b := range breakers {
		switch name := b.Name(); {
		case b.Err() != nil:
			fault(i, "can't be used: %w", b.Err())
		case b.Key() != "":
			fault(i, "has Key %q, want one outside of a Set", b.Key())
		case name == "":
			fault(i, "has no Name, want the one it is shared by")
		case len(name) > maxText:
			fault(i, "has a Name of %d bytes, want at most %d", len(name), maxText)
		case names[name] || f.names[name]:
			fault(i, "is a second one of Name %q, want one", name)
		}
		names[b.Name()] = true
	}
	return errors.Join(faults...)
}

func (f *Fleet) key(name string) string { return f.config.Prefix + name }
