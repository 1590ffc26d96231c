package idempotency

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxOrphans bounds how many tokens are remembered. An outage makes one for each
// claim in flight. A key whose token is not remembered waits for its lease to end.
const maxOrphans = 4096

// orphans remembers the tokens of claims that were sent and never answered. Such a
// claim may have left a lease. The next claim of the same key takes its token and so
// finds that lease to be its own; otherwise it would find the key busy for as long
// as a lease lasts. A token is taken once.
type orphans struct {
	// count lets take return without the lock while there are none.
	count atomic.Int64

	mu    sync.Mutex
	byKey map[string]orphan
}

type orphan struct {
	token   string
	expires time.Time
}

func (o *orphans) take(key, holder string) (token string, ok bool) {
	if o.count.Load() == 0 {
		return "", false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	found, ok := o.byKey[key]
	if !ok || holderOf(found.token) != holder {
		return "", false
	}
	o.remove(key)
	return found.token, time.Now().Before(found.expires)
}

func (o *orphans) put(key, token string, expires time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byKey == nil {
		o.byKey = make(map[string]orphan)
	}
	if len(o.byKey) >= maxOrphans {
		o.dropOne()
	}
	o.byKey[key] = orphan{token: token, expires: expires}
	o.count.Store(int64(len(o.byKey)))
}

// dropOne makes room: it drops an expired one if it finds one among a few, and
// otherwise any.
func (o *orphans) dropOne() {
	now := time.Now()
	looked := 0
	for key, found := range o.byKey {
		if looked++; looked == 8 || !now.Before(found.expires) {
			o.remove(key)
			return
		}
	}
}

func (o *orphans) remove(key string) {
	delete(o.byKey, key)
	o.count.Store(int64(len(o.byKey)))
}
