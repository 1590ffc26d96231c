package rabbitmq

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// brokerChannel settles deliveries as RabbitMQ does: a frame with a tag that is
// not outstanding is an exception, and multiple settles all up to the tag.
type brokerChannel struct {
	next        uint64
	outstanding map[uint64]bool
	acked       map[uint64]bool
	nacked      map[uint64]bool
	frames      int
	fault       error
}

func newBrokerChannel() *brokerChannel {
	return &brokerChannel{outstanding: map[uint64]bool{}, acked: map[uint64]bool{}, nacked: map[uint64]bool{}}
}

func (b *brokerChannel) deliver() *receipt {
	b.next++
	b.outstanding[b.next] = true
	return &receipt{tag: b.next}
}

func (b *brokerChannel) Ack(tag uint64, multiple bool) error {
	b.frames++
	return b.settle(tag, multiple, b.acked)
}

func (b *brokerChannel) Nack(tag uint64, multiple, requeue bool) error {
	if !requeue {
		b.fault = errors.New("a message was dropped")
	}
	return b.settle(tag, multiple, b.nacked)
}

func (b *brokerChannel) settle(tag uint64, multiple bool, settled map[uint64]bool) error {
	if !b.outstanding[tag] {
		b.fault = errors.New("unknown delivery tag")
		return b.fault
	}
	for other := range b.outstanding {
		if other == tag || multiple && other < tag {
			delete(b.outstanding, other)
			settled[other] = true
		}
	}
	return nil
}

func TestAcksSendExactlyWhatWasAcked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefetch := rapid.IntRange(1, 40).Draw(t, "prefetch")
		broker := newBrokerChannel()
		acks := newAcks(broker, prefetch)
		var held []*receipt
		wanted, given := map[uint64]bool{}, map[uint64]bool{}
		pick := func() *receipt {
			if len(held) == 0 {
				return nil
			}
			// Mostly the oldest ones, as workers do.
			i := min(rapid.IntRange(0, 3*len(held)).Draw(t, "which"), len(held)-1)
			r := held[i]
			held = slices.Delete(held, i, i+1)
			return r
		}
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				if len(broker.outstanding) == prefetch {
					return
				}
				r := broker.deliver()
				acks.add(r)
				held = append(held, r)
			},
			"ack": func(t *rapid.T) {
				if r := pick(); r != nil {
					wanted[r.tag] = true
					require.NoError(t, acks.ack(r))
				}
			},
			"nack": func(t *rapid.T) {
				if r := pick(); r != nil {
					given[r.tag] = true
					require.NoError(t, acks.nack(r))
				}
			},
			"tick": func(t *rapid.T) {
				more, err := acks.tick()
				require.NoError(t, err)
				if more {
					more, err = acks.tick()
					require.NoError(t, err)
				}
				require.False(t, more, "an ack waits longer than two ticks")
			},
			"flush": func(t *rapid.T) { require.NoError(t, acks.flush()) },
			"": func(t *rapid.T) {
				require.NoError(t, broker.fault)
				require.Equal(t, given, broker.nacked)
				for tag := range broker.acked {
					require.True(t, wanted[tag], "acked what was not: %d", tag)
				}
				waiting := len(wanted) - len(broker.acked)
				require.Equal(t, waiting, acks.unsent)
				require.Less(t, waiting, max(1, prefetch/2)+1)
				// Prefetch keeps what is remembered bounded, however many are given back
				// behind one that somebody is slow with.
				require.LessOrEqual(t, len(acks.open), prefetch+max(1, prefetch/2))
			},
		})
		require.NoError(t, acks.flush())
		require.NoError(t, broker.fault)
		require.Equal(t, wanted, broker.acked)
		require.Len(t, broker.outstanding, len(held))
	})
}

func TestAcksGoTogether(t *testing.T) {
	const prefetch = 100
	broker := newBrokerChannel()
	acks := newAcks(broker, prefetch)
	for range 10 {
		var batch []*receipt
		for range prefetch {
			r := broker.deliver()
			acks.add(r)
			batch = append(batch, r)
		}
		for _, r := range batch {
			require.NoError(t, acks.ack(r))
		}
	}
	assert.Empty(t, broker.outstanding)
	assert.Equal(t, 40, broker.frames)
}

func TestAcksDoNotWaitForASlowMessage(t *testing.T) {
	broker := newBrokerChannel()
	acks := newAcks(broker, 100)
	slow := broker.deliver()
	acks.add(slow)
	for range 10 {
		r := broker.deliver()
		acks.add(r)
		require.NoError(t, acks.ack(r))
	}
	more, err := acks.tick()
	require.NoError(t, err)
	assert.True(t, more)
	assert.Empty(t, broker.acked, "young ones wait for the gap to close")
	more, err = acks.tick()
	require.NoError(t, err)
	assert.False(t, more)
	assert.Len(t, broker.acked, 10)
	for range 50 {
		r := broker.deliver()
		acks.add(r)
		require.NoError(t, acks.ack(r))
	}
	assert.Len(t, broker.acked, 60, "half the prefetch is not waited with")
	require.NoError(t, acks.ack(slow))
	require.NoError(t, acks.flush())
	assert.Empty(t, broker.outstanding)
	require.NoError(t, broker.fault)
}

func TestAcksTellFailures(t *testing.T) {
	for name, fail := range map[string]func(*acks, []*receipt) error{
		"prefix": func(a *acks, r []*receipt) error { return a.ack(r[0]) },
		"single": func(a *acks, r []*receipt) error { return a.ack(r[1]) },
		"nack":   func(a *acks, r []*receipt) error { return a.nack(r[0]) },
		"tick": func(a *acks, r []*receipt) error {
			a.prefixLimit = 100
			if err := a.ack(r[0]); err != nil {
				return nil //nolint:nilerr // then the test fails
			}
			_, err := a.tick()
			return err
		},
		"tick behind a gap": func(a *acks, r []*receipt) error {
			a.prefixLimit = 100
			if err := a.ack(r[1]); err != nil {
				return nil //nolint:nilerr // then the test fails
			}
			if _, err := a.tick(); err != nil {
				return nil //nolint:nilerr // then the test fails
			}
			_, err := a.tick()
			return err
		},
		"flush": func(a *acks, r []*receipt) error {
			a.prefixLimit = 100
			if err := a.ack(r[0]); err != nil {
				return nil //nolint:nilerr // then the test fails
			}
			return a.flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			broker := newBrokerChannel()
			acks := newAcks(broker, 1)
			receipts := []*receipt{broker.deliver(), broker.deliver()}
			acks.add(receipts[0])
			acks.add(receipts[1])
			clear(broker.outstanding)
			assert.Error(t, fail(acks, receipts))
		})
	}
}

func BenchmarkAcks(b *testing.B) {
	acks := newAcks(discard{}, 256)
	receipts := make([]receipt, 256)
	b.ReportAllocs()
	var tag uint64
	for b.Loop() {
		tag++
		r := &receipts[tag%256]
		*r = receipt{tag: tag}
		acks.add(r)
		acks.ack(r) //nolint:errcheck // never fails
	}
}

type discard struct{}

func (discard) Ack(uint64, bool) error { return nil }

func (discard) Nack(uint64, bool, bool) error { return nil }
