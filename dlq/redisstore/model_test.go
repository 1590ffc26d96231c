package redisstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// TestModel does the same to a Store and to a dlq.Memory: they have to answer
// the same, and index and counts have to be those of the entries. The client
// speaks the older protocol, so that both are tried.
func TestModel(t *testing.T) {
	client := connect(t, shared.RedisURL(t)+"?protocol=2")
	base, runs := servers.Unique(t), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		prefix := fmt.Sprintf("%s-%d", base, runs)
		defer func() {
			keys, err := client.Keys(context.Background(), "{"+prefix+"}:*").Result()
			if err == nil && len(keys) > 0 {
				client.Del(context.Background(), keys...)
			}
		}()
		m := model{
			real:  redisstore.New(client, redisstore.Config{Prefix: prefix, Timeout: patience}),
			ideal: dlq.NewMemory(dlq.MemoryConfig{}),
			now:   start,
		}
		t.Repeat(map[string]func(*rapid.T){
			"":        m.compare,
			"put":     m.put,
			"claim":   m.claim,
			"release": m.release,
			"remove":  m.remove,
			"delete":  m.delete,
			"purge":   m.purge,
			"list":    m.list,
			"wait": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			},
		})
		audit(t, client, prefix)
	})
}

type model struct {
	real, ideal dlq.Store
	now         time.Time
}

var ctx = context.Background()

func ids(t *rapid.T) []string {
	return rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}), 1, 4).Draw(t, "ids")
}

func token(t *rapid.T) string { return rapid.SampledFrom([]string{"one", "two"}).Draw(t, "token") }

func seconds(t *rapid.T, name string) time.Time {
	return start.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, name)) * time.Second)
}

var few = rapid.SampledFrom([]string{"", "x", "y"})

func (m *model) put(t *rapid.T) {
	var entries []dlq.Entry
	for _, id := range ids(t) {
		e := entry(id, 0)
		e.DeadAt = seconds(t, "dead at")
		e.Reason = delivery.Reason(few.Draw(t, "reason"))
		e.Envelope.Recipient = few.Draw(t, "recipient")
		e.Envelope.Type = few.Draw(t, "type")
		e.Fingerprint = few.Draw(t, "fingerprint")
		e.Error = "error of " + e.Fingerprint
		e.Source = few.Draw(t, "source")
		e.Envelope.Body = rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "body")
		entries = append(entries, e)
	}
	require.NoError(t, m.ideal.Put(ctx, entries...))
	require.NoError(t, m.real.Put(ctx, entries...))
}

func (m *model) claim(t *rapid.T) {
	ids, claim := ids(t), dlq.Claim{Token: token(t), Now: m.now, Lease: lease}
	want, wantErrs := m.ideal.Claim(ctx, claim, ids...)
	got, errs := m.real.Claim(ctx, claim, ids...)
	requireSame(t, want, got)
	requireErrors(t, wantErrs, errs)
}

func (m *model) release(t *rapid.T) {
	ids, token := ids(t), token(t)
	requireErrors(t, m.ideal.Release(ctx, token, ids...), m.real.Release(ctx, token, ids...))
}

func (m *model) remove(t *rapid.T) {
	ids, token := ids(t), token(t)
	requireErrors(t, m.ideal.Remove(ctx, token, ids...), m.real.Remove(ctx, token, ids...))
}

func (m *model) delete(t *rapid.T) {
	ids := ids(t)
	requireErrors(t, m.ideal.Delete(ctx, m.now, ids...), m.real.Delete(ctx, m.now, ids...))
}

func (m *model) purge(t *rapid.T) {
	before := seconds(t, "before")
	want, err := m.ideal.Purge(ctx, before, m.now)
	require.NoError(t, err)
	got, err := m.real.Purge(ctx, before, m.now)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func (m *model) list(t *rapid.T) {
	query := dlq.Query{
		Filter: dlq.Filter{
			Reason: delivery.Reason(few.Draw(t, "reason")), Recipient: few.Draw(t, "recipient"), Type: few.Draw(t, "type"),
			Fingerprint: few.Draw(t, "fingerprint"), Source: few.Draw(t, "source"),
		},
		Order: rapid.SampledFrom([]dlq.Order{dlq.NewestFirst, dlq.OldestFirst}).Draw(t, "order"),
		Limit: rapid.IntRange(1, 4).Draw(t, "limit"),
	}
	if rapid.Bool().Draw(t, "bounded") {
		query.Since = seconds(t, "since")
		query.Until = query.Since.Add(time.Duration(rapid.IntRange(1, 4).Draw(t, "more")) * time.Second)
	}
	wantCount, err := m.ideal.Count(ctx, query.Filter)
	require.NoError(t, err)
	count, err := m.real.Count(ctx, query.Filter)
	require.NoError(t, err)
	require.Equal(t, wantCount, count)
	for {
		want, err := m.ideal.List(ctx, query)
		require.NoError(t, err)
		got, err := m.real.List(ctx, query)
		require.NoError(t, err)
		requireSame(t, want.Entries, got.Entries)
		require.Equal(t, want.Next, got.Next)
		if query.Cursor = want.Next; query.Cursor == "" {
			return
		}
	}
}

// compare runs after each step.
func (m *model) compare(t *rapid.T) {
	want, err := m.ideal.Stats(ctx, 5)
	require.NoError(t, err)
	got, err := m.real.Stats(ctx, 5)
	require.NoError(t, err)
	require.Equal(t, want, got)
	count, err := m.real.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, want.Total, count)
}

// requireSame compares entries in their stored form: an empty body is as none.
func requireSame(t require.TestingT, want, got []dlq.Entry) {
	wantText, err := json.Marshal(want)
	require.NoError(t, err)
	gotText, err := json.Marshal(got)
	require.NoError(t, err)
	require.Equal(t, string(wantText), string(gotText))
}

func requireErrors(t require.TestingT, want, got []error) {
	for i := range got {
		if len(want) == 0 {
			require.NoError(t, got[i])
		} else {
			require.ErrorIs(t, got[i], want[i])
		}
	}
	if len(want) > 0 {
		require.Len(t, got, len(want))
	}
}
