package metrics_test

import (
	"testing"

	"github.com/esh3artech/barid/metrics"
)

func BenchmarkCounterAdd(b *testing.B) {
	counter := metrics.NewCollector(metrics.CollectorConfig{}).Counter("c", "k", "v")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			counter.Add(1)
		}
	})
}

func BenchmarkHistogramObserve(b *testing.B) {
	histogram := metrics.NewCollector(metrics.CollectorConfig{}).Histogram("h")
	histogram.Observe(1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		v := 0.0
		for pb.Next() {
			v += 1e-6
			histogram.Observe(v)
		}
	})
}

func BenchmarkBind(b *testing.B) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	b.ReportAllocs()
	for b.Loop() {
		collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	for i := range 10000 {
		collector.Histogram(metrics.HandlerSeconds).Observe(float64(i) / 1e4)
		collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered).Add(1)
	}
	b.ReportAllocs()
	for b.Loop() {
		collector.Snapshot()
	}
}
