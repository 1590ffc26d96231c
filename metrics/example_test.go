package metrics_test

import (
	"fmt"

	"github.com/esh3artech/barid/metrics"
)

func ExampleCollector() {
	collector := metrics.NewCollector(metrics.CollectorConfig{})

	// Bound once, used for every message.
	delivered := collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered)
	dead := collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDeadLettered)
	delivered.Add(3)
	dead.Add(1)

	snapshot := collector.Snapshot()
	fmt.Println(snapshot.Processed)
	fmt.Println("failure rate:", snapshot.FailureRate)
	// Output:
	// map[dead_lettered:1 delivered:3]
	// failure rate: 0.25
}

func ExampleCollector_Value() {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	collector.Gauge(metrics.QueueDepth, metrics.LabelPriority, "urgent").Set(12)

	depth, known := collector.Value(metrics.QueueDepth, metrics.LabelPriority, "urgent")
	fmt.Println(depth, known)
	// Output: 12 true
}
