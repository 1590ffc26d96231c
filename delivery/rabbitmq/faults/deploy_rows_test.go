package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/retry"
)

func deployRows() []row {
	return []row{
		{
			number: 44, fault: "rolling deploy", how: "each of 3 ordered consumers of 4 shards ended and replaced under load, twice",
			promise: "each recipient's messages have their effects in order", quick: true, run: rollingDeploy,
		},
	}
}

// recipientLedger is a ledger that also knows the order in which each recipient's
// messages have their first effects. It reads recipient and number from the IDs.
type recipientLedger struct {
	ledger

	mu     sync.Mutex
	last   map[string]int
	faults []string
}

func recipientID(recipient string, number int) string { return fmt.Sprint(recipient, "/", number) }

func (l *recipientLedger) Effect(id string) {
	recipient, text, _ := strings.Cut(id, "/")
	number, err := strconv.Atoi(text)
	l.mu.Lock()
	switch last := l.last[recipient]; {
	case err != nil:
		l.faults = append(l.faults, id)
	case number > last:
		if number != last+1 {
			l.faults = append(l.faults, fmt.Sprintf("%s: %d after %d", recipient, number, last))
		}
		l.last[recipient] = number
	}
	l.mu.Unlock()
	l.ledger.Effect(id)
}

// rollingDeploy replaces ordered consumers one after the other. Each is given the time
// that it needs to end in order, and its successor is there before.
func rollingDeploy(r *rowTest) {
	const recipients, instances, rounds = 60, 3, 2
	order := &recipientLedger{ledger: r.target, last: map[string]int{}}
	r.target = order
	var failed sync.Map
	p := r.pipeline(pipelineConfig{
		noConsumer: true,
		transport:  func(c *rabbitmq.Config) { c.Shards = 4 },
		handler: func(ctx context.Context, m delivery.Message) error {
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
			if strings.HasSuffix(m.ID, "7") {
				if _, again := failed.LoadOrStore(m.ID, true); !again {
					return errors.New("fails once")
				}
			}
			return nil
		},
		consumer: func(c *delivery.ConsumerConfig) {
			c.Ordered, c.Retry = true, retry.Exponential{Base: 20 * time.Millisecond, MaxRetries: 3}
		},
	})
	var publishing sync.WaitGroup
	stop := make(chan struct{})
	stopPublishing := sync.OnceFunc(func() {
		close(stop)
		publishing.Wait()
	})
	r.atEnd(stopPublishing)
	for i := range recipients {
		publishing.Go(func() { p.publishInOrder(fmt.Sprint("recipient", i), stop) })
	}

	consumers := make([]func(), instances)
	for i := range consumers {
		consumers[i] = p.instance()
	}
	for range rounds {
		for i, end := range consumers {
			p.awaitMore(300)
			consumers[i] = p.instance()
			end()
		}
	}
	p.awaitMore(300)
	p.eventually(func() bool { return p.accepted.Load() >= minPublished }, "too few messages are accepted")
	stopPublishing()
	p.drain()
	for _, end := range consumers {
		end()
	}
	order.mu.Lock()
	defer order.mu.Unlock()
	assert.Empty(r, order.faults, "out of order")
	r.note("%d recipients, %d hand-overs", recipients, instances*rounds)
}

// publishInOrder publishes a recipient's messages, one when the one before it was
// accepted.
func (p *pipeline) publishInOrder(recipient string, stop <-chan struct{}) {
	for number := 1; ; number++ {
		select {
		case <-stop:
			return
		case <-p.ctx.Done():
			return
		case <-time.After(publishInterval):
		}
		p.publish(delivery.Message{ID: recipientID(recipient, number), Recipient: recipient, Body: make([]byte, p.body.Load())})
	}
}

// instance starts a consumer with a transport of its own, as another process would.
// What it returns ends both in order.
func (p *pipeline) instance() (end func()) {
	p.Helper()
	transport := p.open(p.transportConfig)
	config := p.consumerConfig()
	consumer, err := delivery.NewConsumer(transport, p.handle, config)
	require.NoError(p, err)
	ctx, cancel := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() { consumed <- consumer.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		p.mustEnd("Consumer.Run", func() error { return <-consumed })
		p.mustEnd("Transport.Close", transport.Close)
	})
	p.atEnd(end)
	return end
}
