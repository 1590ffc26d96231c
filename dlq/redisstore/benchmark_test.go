package redisstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

func BenchmarkPut(b *testing.B) {
	client := connect(b, shared.RedisURL(b))
	for _, count := range []int{1, 100} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			store := open(b, client, redisstore.Config{})
			entries := make([]dlq.Entry, count)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range entries {
					n++
					entries[i] = entry(fmt.Sprint(n), n)
				}
				require.NoError(b, store.Put(b.Context(), entries...))
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkReading(b *testing.B) {
	client := connect(b, shared.RedisURL(b))
	store := open(b, client, redisstore.Config{})
	const kept = 10_000
	entries := make([]dlq.Entry, kept)
	for i := range entries {
		entries[i] = entry(fmt.Sprint(i), i)
		entries[i].Envelope.Type = fmt.Sprint("type ", i%100)
	}
	require.NoError(b, store.Put(b.Context(), entries...))
	b.Run("List", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			page, err := store.List(b.Context(), dlq.Query{Filter: dlq.Filter{Type: "type 7", Source: "sms"}})
			require.NoError(b, err)
			require.Len(b, page.Entries, kept/100)
		}
	})
	b.Run("Stats", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := store.Stats(b.Context(), 10)
			require.NoError(b, err)
		}
	})
}
