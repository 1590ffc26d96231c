package metrics_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/metrics"
)

func value(t *testing.T, c *metrics.Collector, name string, labels ...string) float64 {
	t.Helper()
	v, ok := c.Value(name, labels...)
	require.True(t, ok, "no series %s%v", name, labels)
	return v
}

func TestConfigFaultsAreAllNamedAndTheDefaultsStandIn(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{Window: time.Millisecond, MaxSeries: -1})
	require.ErrorIs(t, collector.Err(), metrics.ErrConfig)
	require.ErrorContains(t, collector.Err(), "Window is 1ms, want 1s to 24h0m0s")
	require.ErrorContains(t, collector.Err(), "MaxSeries is -1, want at least 1")

	collector.Counter("c").Add(2)
	assert.InDelta(t, 2, value(t, collector, "c"), 0)
	require.NoError(t, metrics.NewCollector(metrics.CollectorConfig{Window: 24 * time.Hour, MaxSeries: 1}).Err())
}

func TestZeroAndNilCollectorsWork(t *testing.T) {
	var zero metrics.Collector
	zero.Counter("c").Add(1)
	assert.InDelta(t, 1, value(t, &zero, "c"), 0)
	require.NoError(t, zero.Err())

	var none *metrics.Collector
	none.Counter("c").Add(1)
	none.Histogram("h").Observe(1)
	none.Gauge("g").Set(1)
	_, ok := none.Value("c")
	assert.False(t, ok)
	assert.Empty(t, none.Samples())
	assert.Zero(t, none.Snapshot().ProcessedPerSecond)
	require.NoError(t, none.Err())
}

func TestSameNameAndLabelsAreTheSameInstrument(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	assert.Same(t, collector.Counter("c", "a", "1", "b", "2"), collector.Counter("c", "b", "2", "a", "1"))
	assert.Same(t, collector.Histogram("h", "a", "1", "b", "2"), collector.Histogram("h", "b", "2", "a", "1"))
	assert.Same(t, collector.Gauge("g", "a", ""), collector.Gauge("g", "a"))

	for _, pair := range [][2][]string{
		{{"a", "1"}, {"a", "2"}},
		{{"a", "1"}, {"b", "1"}},
		{{"a", "bc"}, {"ab", "c"}},
		{{"a", "1", "b", "2"}, {"a", "1b2"}},
		{{"a", "2:bc"}, {"a", "2", "bc", ""}},
		{nil, {"a", ""}},
	} {
		assert.NotSame(t, collector.Counter("c", pair[0]...), collector.Counter("c", pair[1]...), "%q", pair)
	}
}

func TestANameHasOneKind(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	collector.Counter("x").Add(1)
	collector.Gauge("x").Set(7)
	collector.Histogram("x").Observe(7)
	collector.Gauge("y").Set(3)
	collector.Counter("y").Add(1)
	assert.InDelta(t, 1, value(t, collector, "x"), 0)
	assert.InDelta(t, 3, value(t, collector, "y"), 0)
}

func TestSeriesOverTheLimitShareOne(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{MaxSeries: 2})
	for i := range 5 {
		collector.Counter("c", "name", strconv.Itoa(i)).Add(1)
		collector.Gauge("g", "name", strconv.Itoa(i)).Set(float64(i))
	}
	assert.InDelta(t, 1, value(t, collector, "c", "name", "0"), 0)
	assert.InDelta(t, 1, value(t, collector, "c", "name", "1"), 0)
	assert.InDelta(t, 3, value(t, collector, "c", "name", metrics.OtherSeries), 0)
	assert.InDelta(t, 4, value(t, collector, "g", "name", metrics.OtherSeries), 0)
	_, ok := collector.Value("c", "name", "2")
	assert.False(t, ok)
	assert.Len(t, collector.Samples(), 6)
}

func TestCounterIgnoresWhatIsNotPositive(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	counter := collector.Counter("c")
	counter.Add(-1)
	counter.Add(0)
	assert.InDelta(t, 0, value(t, collector, "c"), 0)
}

func TestGaugeHoldsWhatJSONCanHold(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	gauge := collector.Gauge("g")
	gauge.Set(5)
	gauge.Set(math.NaN())
	assert.InDelta(t, 5, value(t, collector, "g"), 0)
	gauge.Set(math.Inf(1))
	assert.InDelta(t, math.MaxFloat64, value(t, collector, "g"), 0)
	gauge.Set(math.Inf(-1))
	assert.InDelta(t, -math.MaxFloat64, value(t, collector, "g"), 0)
}

func TestHistogramFigures(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	histogram := collector.Histogram("h")
	for i := 1; i <= 1000; i++ {
		histogram.Observe(float64(i) / 1000)
	}
	sample := collector.Samples()[0]
	assert.Equal(t, "h", sample.Name)
	assert.Equal(t, metrics.KindHistogram, sample.Kind)
	assert.InDelta(t, 1000, sample.Value, 0)
	assert.InDelta(t, 500.5, sample.Sum, 1e-6)
	assert.Equal(t, int64(1000), sample.Recent.Count)
	assert.InEpsilon(t, 0.5005, sample.Recent.Mean, 1e-6)
	assert.InEpsilon(t, 0.5, sample.Recent.P50, 0.01)
	assert.InEpsilon(t, 0.95, sample.Recent.P95, 0.01)
	assert.InEpsilon(t, 0.99, sample.Recent.P99, 0.01)
}

func TestHistogramTakesAnyValue(t *testing.T) {
	for _, c := range []struct {
		observed   float64
		count, sum float64
	}{
		{0, 1, 0},
		{-1, 1, 0},
		{math.Inf(-1), 1, 0},
		{math.NaN(), 0, 0},
		{1e-9, 1, 1e-9},
		{1e6, 1, 1e6},
		{1e6 + 1, 1, 1e6},
		{math.MaxFloat64, 1, 1e6},
		{math.Inf(1), 1, 1e6},
	} {
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		collector.Histogram("h").Observe(c.observed)
		sample := collector.Samples()[0]
		assert.InDelta(t, c.count, sample.Value, 0, "%v", c.observed)
		assert.InDelta(t, c.sum, sample.Sum, 0, "%v", c.observed)
		assert.Equal(t, int64(c.count), sample.Recent.Count, "%v", c.observed)
		assert.InEpsilon(t, c.sum+1, sample.Recent.P99+1, 0.01, "%v", c.observed)
		_, err := json.Marshal(sample)
		require.NoError(t, err)
	}
}

// The window of a model that remembers every event is compared with the
// Collector's: it must hold everything of the last five sixths and nothing
// older than the whole.
func TestWindowHoldsWhatIsRecent(t *testing.T) {
	const window = 6 * time.Second
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{
			0, time.Millisecond, 400 * time.Millisecond, time.Second, 2500 * time.Millisecond, 7 * time.Second, time.Minute,
		}), 1, 40).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			collector := metrics.NewCollector(metrics.CollectorConfig{Window: window})
			counter := collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered)
			histogram := collector.Histogram(metrics.HandlerSeconds)
			var events []time.Time
			for i, step := range steps {
				time.Sleep(step)
				if i%3 != 2 {
					counter.Add(1)
					histogram.Observe(0.25)
					events = append(events, time.Now())
				}
				atLeast, atMost := 0, 0
				for _, at := range events {
					if time.Since(at) <= window*5/6 {
						atLeast++
					}
					if time.Since(at) <= window {
						atMost++
					}
				}
				snapshot := collector.Snapshot()
				counted := snapshot.ProcessedPerSecond * max(snapshot.WindowSeconds, 1)
				require.GreaterOrEqual(t, counted, float64(atLeast)-1e-6)
				require.LessOrEqual(t, counted, float64(atMost)+1e-6)
				require.GreaterOrEqual(t, snapshot.HandlerSeconds.Count, int64(atLeast))
				require.LessOrEqual(t, snapshot.HandlerSeconds.Count, int64(atMost))
				require.InDelta(t, counted, snapshot.HandlerSeconds.Count, 1e-6)
				if snapshot.HandlerSeconds.Count > 0 {
					require.InDelta(t, 0.25, snapshot.HandlerSeconds.Mean, 1e-6)
				}
				require.LessOrEqual(t, snapshot.WindowSeconds, window.Seconds())
				require.Equal(t, int64(len(events)), snapshot.Processed[metrics.OutcomeDelivered])
				require.InDelta(t, float64(len(events)), value(t, collector, metrics.HandlerSeconds), 0)
			}
		})
	})
}

func TestCollectorUnderConcurrentUse(t *testing.T) {
	const workers, rounds = 8, 2000
	collector := metrics.NewCollector(metrics.CollectorConfig{Window: time.Second, MaxSeries: 3})
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range rounds {
				collector.Counter("c").Add(1)
				collector.Counter("many", "i", strconv.Itoa(i%10)).Add(1)
				collector.Histogram("h").Observe(1)
				collector.Gauge("g").Set(float64(worker))
				if i%500 == 0 {
					collector.Snapshot()
					collector.Samples()
				}
			}
		})
	}
	group.Wait()
	assert.InDelta(t, workers*rounds, value(t, collector, "c"), 0)
	assert.InDelta(t, workers*rounds, value(t, collector, "h"), 0)
	many := 0.0
	for _, sample := range collector.Samples() {
		switch sample.Name {
		case "many":
			many += sample.Value
		case "h":
			assert.InDelta(t, workers*rounds, sample.Sum, 0.001)
		}
	}
	assert.InDelta(t, workers*rounds, many, 0)
}

func TestSamplesAreSortedAndSeparate(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	collector.Gauge("b").Set(1)
	collector.Counter("a", "k", "2").Add(1)
	collector.Counter("a", "k", "1", "j", "9").Add(1)
	collector.Counter("a", "k", "1").Add(1)
	var got []string
	for _, sample := range collector.Samples() {
		got = append(got, fmt.Sprintf("%s %s %v", sample.Name, sample.Kind, sample.Labels))
		for i := range sample.Labels {
			sample.Labels[i].Value = "changed"
		}
	}
	assert.Equal(t, []string{
		"a counter [{j 9} {k 1}]", "a counter [{k 1}]", "a counter [{k 2}]", "b gauge []",
	}, got)
	assert.InDelta(t, 1, value(t, collector, "a", "k", "1"), 0)
	assert.Equal(t, "1", collector.Samples()[1].Labels[0].Value)
}

func TestKindNames(t *testing.T) {
	assert.Equal(t, "counter histogram gauge unknown",
		fmt.Sprint(metrics.KindCounter, " ", metrics.KindHistogram, " ", metrics.KindGauge, " ", metrics.Kind(0)))
}
