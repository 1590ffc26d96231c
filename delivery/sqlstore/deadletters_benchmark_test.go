package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
)

// BenchmarkKeys measures what a message's key costs that is claimed and
// completed.
func BenchmarkKeys(b *testing.B) {
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		b.ReportAllocs()
		keys := store.Keys()
		var n atomic.Int64
		b.ResetTimer()
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
					key := fmt.Sprint("key ", i)
					answer, err := keys.Claim(context.Background(), key, "token", 0, time.Minute)
					if err != nil || answer.State != idempotency.Claimed {
						b.Errorf("claim: %v, %v", answer, err)
					}
					if _, err := keys.Complete(context.Background(), key, "token", time.Hour); err != nil {
						b.Errorf("complete: %v", err)
					}
				}
			})
		}
		group.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
	})
}

// BenchmarkRequeue measures what a thousand dead letters cost that are claimed,
// and removed after they were sent: in batches, one by one, and one by one from
// many goroutines.
func BenchmarkRequeue(b *testing.B) {
	const count = 1000
	ids := make([]string, count)
	entries := make([]dlq.Entry, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%04d", i)
		entries[i] = deadEntry(ids[i], i)
		entries[i].Envelope.Body = make([]byte, 1024)
	}
	for _, shape := range []struct {
		name        string
		batch, many int
	}{{"batches of 100", 100, 1}, {"single", 1, 1}, {"64 single at once", 1, 64}} {
		b.Run(shape.name, func(b *testing.B) {
			onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
				letters := store.DeadLetters()
				for b.Loop() {
					b.StopTimer()
					require.NoError(b, letters.Put(b.Context(), entries...))
					b.StartTimer()
					parts := slices.Collect(slices.Chunk(ids, shape.batch))
					var next atomic.Int64
					var group sync.WaitGroup
					for range shape.many {
						group.Go(func() {
							for i := next.Add(1) - 1; i < int64(len(parts)); i = next.Add(1) - 1 {
								_, claimed := letters.Claim(context.Background(), dlq.Claim{Token: "token", Now: firstDeadAt, Lease: lease}, parts[i]...)
								removed := letters.Remove(context.Background(), "token", parts[i]...)
								if err := errors.Join(errors.Join(claimed...), errors.Join(removed...)); err != nil {
									b.Error(err)
								}
							}
						})
					}
					group.Wait()
				}
				b.ReportMetric(float64(b.N*count)/b.Elapsed().Seconds(), "letters/s")
			})
		})
	}
}

// BenchmarkLetters reads out of many dead letters.
func BenchmarkLetters(b *testing.B) {
	const count = 100_000
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		letters := store.DeadLetters()
		entries := make([]dlq.Entry, 0, 1000)
		for i := range count {
			e := deadEntry(fmt.Sprintf("%06d", i), i)
			e.Envelope.Recipient, e.Fingerprint = fmt.Sprint("r", i%1000), fmt.Sprint("f", i%100)
			if entries = append(entries, e); len(entries) == cap(entries) {
				require.NoError(b, letters.Put(b.Context(), entries...))
				entries = entries[:0]
			}
		}
		b.Run("List by recipient", func(b *testing.B) {
			for b.Loop() {
				page, err := letters.List(b.Context(), dlq.Query{Filter: dlq.Filter{Recipient: "r7", Reason: "exhausted"}})
				require.NoError(b, err)
				require.Len(b, page.Entries, 100)
			}
		})
		b.Run("Count", func(b *testing.B) {
			for b.Loop() {
				n, err := letters.Count(b.Context(), dlq.Filter{})
				require.NoError(b, err)
				require.Equal(b, count, n)
			}
		})
		b.Run("Stats", func(b *testing.B) {
			for b.Loop() {
				stats, err := letters.Stats(b.Context(), 10)
				require.NoError(b, err)
				require.Equal(b, count, stats.Total)
			}
		})
	})
}
