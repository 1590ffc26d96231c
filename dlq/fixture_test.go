package dlq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

// letter is a dead letter whose body, recipient and error must not leak.
func letter(id string) delivery.DeadLetter {
	return delivery.DeadLetter{
		ID: id,
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID: "message of " + id, Recipient: "secret-recipient", Type: "sms", Body: []byte("secret-body"),
			},
			Attempt: 3,
			History: []delivery.Failure{{At: noon.Add(-time.Minute), Attempt: 2, Error: "secret-error 1"}, {At: noon, Attempt: 3, Error: "secret-error 2"}},
		},
		Reason: delivery.ReasonExhausted,
		Error:  "secret-error 2",
		Source: "consumer",
		At:     noon,
	}
}

func letters(n int) ([]delivery.DeadLetter, []string) {
	all, ids := make([]delivery.DeadLetter, n), make([]string, n)
	for i := range all {
		ids[i] = fmt.Sprintf("letter-%03d", i)
		all[i] = letter(ids[i])
	}
	return all, ids
}

// log collects events, each as its fields.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *log) events(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	assert.NotContains(t, l.text.String(), "secret")
	var events []map[string]any
	for line := range strings.Lines(l.text.String()) {
		var event map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &event))
		delete(event, "time")
		events = append(events, event)
	}
	return events
}

// broken is a store whose calls fail where the test wants it.
type broken struct {
	dlq.Store
	put, count, purge error
	remove            func(ids []string) []error // nil lets it through
	claim             func(ids []string) ([]dlq.Entry, []error)
	counts            atomic.Int32
	released          []string
}

func (b *broken) Put(ctx context.Context, entries ...dlq.Entry) error {
	if b.put != nil {
		return b.put
	}
	return b.Store.Put(ctx, entries...)
}

func (b *broken) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	b.counts.Add(1)
	if b.count != nil {
		return 0, b.count
	}
	return b.Store.Count(ctx, filter)
}

func (b *broken) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if b.purge != nil {
		return 0, b.purge
	}
	return b.Store.Purge(ctx, before, now)
}

func (b *broken) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	if b.claim != nil {
		return b.claim(ids)
	}
	return b.Store.Claim(ctx, claim, ids...)
}

func (b *broken) Remove(ctx context.Context, token string, ids ...string) []error {
	if b.remove != nil {
		return b.remove(ids)
	}
	return b.Store.Remove(ctx, token, ids...)
}

func (b *broken) Release(ctx context.Context, token string, ids ...string) []error {
	b.released = append(b.released, ids...)
	return b.Store.Release(ctx, token, ids...)
}

func kept(t *testing.T, manager *dlq.Manager) []string {
	t.Helper()
	page, err := manager.List(context.Background(), dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit})
	require.NoError(t, err)
	ids := []string{}
	for i := range page.Entries {
		ids = append(ids, page.Entries[i].ID)
	}
	return ids
}

func gauge(t *testing.T, collector *metrics.Collector) float64 {
	t.Helper()
	value, ok := collector.Value(metrics.DeadLetters)
	require.True(t, ok)
	return value
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// sender remembers what was sent to it, call by call.
type sender struct {
	mu      sync.Mutex
	calls   [][]delivery.Envelope
	forward func(ctx context.Context, envelopes []delivery.Envelope) error // nil confirms all
}

func (s *sender) Forward(ctx context.Context, envelopes ...delivery.Envelope) error {
	s.mu.Lock()
	s.calls = append(s.calls, slices.Clone(envelopes))
	s.mu.Unlock()
	if s.forward == nil {
		return nil
	}
	return s.forward(ctx, envelopes)
}

func (s *sender) sent() []delivery.Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.calls...)
}

// count is how many calls there were.
func (s *sender) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// partly answers for each envelope by its message's ID.
func partly(errs map[string]error) func(context.Context, []delivery.Envelope) error {
	return func(_ context.Context, envelopes []delivery.Envelope) error {
		failed := &delivery.ResultsError{}
		for i := range envelopes {
			failed.Results = append(failed.Results, delivery.Result{ID: envelopes[i].ID, Err: errs[envelopes[i].ID]})
		}
		if len(failed.Unwrap()) == 0 {
			return nil
		}
		return fmt.Errorf("sender: %w", failed)
	}
}

func requeuer(t *testing.T, store dlq.Store, sender dlq.Sender, config dlq.Config, all ...delivery.DeadLetter) *dlq.Manager {
	t.Helper()
	manager := dlq.NewManager(store, sender, config)
	require.NoError(t, manager.Err())
	require.NoError(t, manager.DeadLetter(context.Background(), all...))
	return manager
}

type forwardFunc func(context.Context, ...delivery.Envelope) error

func (f forwardFunc) Forward(ctx context.Context, envelopes ...delivery.Envelope) error {
	return f(ctx, envelopes...)
}

// wait has everything happen that happens within d, and returns when nothing goes on
// in the bubble.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
