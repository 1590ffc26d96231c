package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/metrics"
)

// slowGauge takes its time to be set to 0.
type slowGauge struct {
	metrics.Recorder
	began chan struct{} // to be set to 0
	set1  chan struct{}

	mu    sync.Mutex
	value float64
}

func (g *slowGauge) Gauge(string, ...string) metrics.Gauge { return g }

func (g *slowGauge) Set(v float64) {
	if v == 0 {
		close(g.began)
		select {
		case <-g.set1:
		case <-time.After(100 * time.Millisecond):
		}
	} else {
		close(g.set1)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.value = v
}

// What answers while its failure is being told is up.
func TestDependencyThatFailsAndAnswersAtOnce(t *testing.T) {
	gauge := &slowGauge{began: make(chan struct{}), set1: make(chan struct{})}
	d := newDependency("store", gauge, slog.New(slog.DiscardHandler))
	var failing sync.WaitGroup
	failing.Go(func() { d.failed(context.Background(), errors.New("down")) })
	<-gauge.began
	d.answered(context.Background())
	failing.Wait()
	assert.InDelta(t, 1, gauge.value, 0)
}
