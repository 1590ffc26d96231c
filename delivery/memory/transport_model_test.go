package memory_test

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// model is what the queues have to be: for each priority what waits, sorted by
// its number, and what each subscription has in hand.
type model struct {
	transport *memory.Transport
	next      int
	waiting   map[delivery.Priority][]int
	consumers []*consumer
}

type consumer struct {
	subscription delivery.Subscription
	hand         []held
}

type held struct {
	number   int
	incoming delivery.Incoming
}

const modelPrefetch = 3

func (m *model) giveBack(h held) {
	priority := h.incoming.Priority()
	m.waiting[priority] = append(m.waiting[priority], h.number)
	slices.Sort(m.waiting[priority])
}

// pick is any consumer, nil when there is none.
func (m *model) pick(t *rapid.T) *consumer {
	if len(m.consumers) == 0 {
		return nil
	}
	return rapid.SampledFrom(m.consumers).Draw(t, "consumer")
}

// settle settles anything that is in hand.
func (m *model) settle(t *rapid.T, settle func(delivery.Incoming) error) (held, bool) {
	c := m.pick(t)
	if c == nil || len(c.hand) == 0 {
		return held{}, false
	}
	i := rapid.IntRange(0, len(c.hand)-1).Draw(t, "which")
	h := c.hand[i]
	c.hand = slices.Delete(c.hand, i, i+1)
	require.NoError(t, settle(h.incoming))
	require.ErrorIs(t, h.incoming.Ack(), delivery.ErrSettled)
	return h, true
}

func TestModel(t *testing.T) {
	ctx := context.Background()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	priorities := delivery.Priorities()
	rapid.Check(t, func(t *rapid.T) {
		m := &model{transport: memory.New(memory.Config{}), waiting: map[delivery.Priority][]int{}}
		defer func() { require.NoError(t, m.transport.Close()) }()
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				batch := make([]delivery.Envelope, rapid.IntRange(1, 80).Draw(t, "n"))
				for i := range batch {
					priority := rapid.SampledFrom(priorities[:]).Draw(t, "priority")
					m.next++
					batch[i] = envelope(strconv.Itoa(m.next), priority)
					m.waiting[priority] = append(m.waiting[priority], m.next)
				}
				require.Nil(t, m.transport.Send(ctx, batch))
			},
			"subscribe": func(t *rapid.T) {
				subscription, err := m.transport.Subscribe(ctx, delivery.SubscribeConfig{Prefetch: modelPrefetch})
				require.NoError(t, err)
				m.consumers = append(m.consumers, &consumer{subscription: subscription})
			},
			"receive": func(t *rapid.T) {
				c := m.pick(t)
				if c == nil {
					return
				}
				var want []int
				for _, priority := range priorities {
					inHand := 0
					for _, h := range c.hand {
						if h.incoming.Priority() == priority {
							inHand++
						}
					}
					n := min(modelPrefetch-inHand, len(m.waiting[priority]))
					want = append(want, m.waiting[priority][:n]...)
					m.waiting[priority] = m.waiting[priority][n:]
				}
				if len(want) == 0 {
					_, err := c.subscription.Receive(ended)
					require.ErrorIs(t, err, context.Canceled)
					return
				}
				incomings, err := c.subscription.Receive(ctx)
				require.NoError(t, err)
				got := make([]int, len(incomings))
				for i, incoming := range incomings {
					envelope, err := incoming.Envelope()
					require.NoError(t, err)
					got[i], err = strconv.Atoi(envelope.ID)
					require.NoError(t, err)
					c.hand = append(c.hand, held{got[i], incoming})
				}
				require.Equal(t, want, got)
			},
			"ack": func(t *rapid.T) { m.settle(t, delivery.Incoming.Ack) },
			"nack": func(t *rapid.T) {
				if h, ok := m.settle(t, delivery.Incoming.Nack); ok {
					m.giveBack(h)
				}
			},
			"close": func(t *rapid.T) {
				c := m.pick(t)
				if c == nil {
					return
				}
				require.NoError(t, c.subscription.Close())
				for _, h := range c.hand {
					require.ErrorIs(t, h.incoming.Nack(), delivery.ErrStale)
					m.giveBack(h)
				}
				m.consumers = slices.DeleteFunc(m.consumers, func(other *consumer) bool { return other == c })
			},
			"": func(t *rapid.T) {
				depths, err := m.transport.Depth(ctx)
				require.NoError(t, err)
				for _, priority := range priorities {
					require.EqualValues(t, len(m.waiting[priority]), depths[priority].Messages)
				}
			},
		})
	})
}
