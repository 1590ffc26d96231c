package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
)

// traffic publishes and consumes all the time, and keeps a ledger.
type traffic struct {
	t         *testing.T
	transport *Transport
	ledger    deliverytest.Ledger
	sent      atomic.Int64
	got       atomic.Int64
	stopping  chan struct{}
	sending   sync.WaitGroup
	receiving sync.WaitGroup
	cancel    context.CancelFunc
}

const (
	trafficCallers  = 8
	trafficPrefetch = 50
	// trafficPause leaves time on the machine for whatever breaks something, such as
	// rabbitmqctl.
	trafficPause = 5 * time.Millisecond
)

func startTraffic(t *testing.T, transport *Transport) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{t: t, transport: transport, stopping: make(chan struct{}), cancel: cancel}
	subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{Prefetch: trafficPrefetch})
	require.NoError(t, err)
	t.Cleanup(func() {
		cancel()
		tr.receiving.Wait()
		assert.NoError(t, subscription.Close())
	})
	for caller := range trafficCallers {
		tr.sending.Go(func() { tr.send(caller) })
	}
	tr.receiving.Go(func() {
		for {
			incomings, err := subscription.Receive(ctx)
			if err != nil {
				return
			}
			for _, in := range incomings {
				e, err := in.Envelope()
				if assert.NoError(t, err) {
					tr.ledger.Effect(e.ID)
				}
				tr.got.Add(1)
				in.Ack() //nolint:errcheck // stale ones come again
			}
		}
	})
	return tr
}

func (tr *traffic) send(caller int) {
	for i := 0; ; i++ {
		select {
		case <-tr.stopping:
			return
		default:
		}
		batch := make([]delivery.Envelope, 1+i%5)
		for k := range batch {
			batch[k].Message = delivery.Message{
				ID: fmt.Sprintf("%d-%d-%d", caller, i, k), Recipient: "you", Body: make([]byte, 200),
				Priority: delivery.Priority(i%4 - 1),
			}
		}
		// Without a deadline: whatever happens, the messages get through.
		errs := tr.transport.Send(context.Background(), batch)
		if !assert.Nil(tr.t, errs) {
			return
		}
		for _, e := range batch {
			tr.ledger.Sent(e.ID)
		}
		tr.sent.Add(int64(len(batch)))
		<-time.After(trafficPause)
	}
}

// awaitMore waits until so many more messages have been sent and received.
func (tr *traffic) awaitMore(n int64) {
	tr.t.Helper()
	sent, got := tr.sent.Load()+n, tr.got.Load()+n
	require.Eventually(tr.t, func() bool { return tr.sent.Load() >= sent && tr.got.Load() >= got }, time.Minute, 10*time.Millisecond)
}

// finish ends the publishing, waits for what is queued, and checks the ledger.
func (tr *traffic) finish(breaks int) {
	tr.t.Helper()
	close(tr.stopping)
	tr.sending.Wait()
	most := breaks * (len(tr.transport.publishConns.all)*tr.transport.config.Window + 4*trafficPrefetch)
	assert.Eventually(tr.t, func() bool { return tr.ledger.Report().Err(most) == nil }, time.Minute, 10*time.Millisecond)
	report := tr.ledger.Report()
	tr.t.Log(report)
	assert.NoError(tr.t, report.Err(most))
}
