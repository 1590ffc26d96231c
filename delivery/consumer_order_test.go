package delivery_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// TestOrderedKeepsOrder runs random messages through handlers that fail as often
// as drawn, and asks of each recipient: never two at once, and within a priority
// each came to its end before the next began.
func TestOrderedKeepsOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type plan struct {
			recipient, failures int
			permanent           bool
			priority            delivery.Priority
			took                time.Duration
		}
		plans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) plan {
			return plan{
				recipient: rapid.IntRange(0, 3).Draw(t, "recipient"),
				failures:  rapid.SampledFrom([]int{0, 0, 0, 1, 2, 9}).Draw(t, "failures"),
				permanent: rapid.IntRange(0, 9).Draw(t, "permanent") == 0,
				priority:  rapid.SampledFrom([]delivery.Priority{delivery.Normal, delivery.Normal, delivery.Urgent}).Draw(t, "priority"),
				took:      time.Duration(rapid.IntRange(0, 50).Draw(t, "milliseconds")) * time.Millisecond,
			}
		}), 1, 60).Draw(rt, "messages")
		concurrency := rapid.IntRange(1, 16).Draw(rt, "concurrency")
		crash := rapid.SampledFrom([]int{-1, -1, 3, 10}).Draw(rt, "lost ack of message")

		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			config := f.config()
			config.Metrics = nil
			config.Ordered = true
			config.Concurrency = concurrency
			var mu sync.Mutex
			running := map[string]int{}
			var begun []int // message numbers, as their runs began
			lost := false
			f.transport.loseAck = func(id string) bool {
				mu.Lock()
				defer mu.Unlock()
				first := id == strconv.Itoa(crash) && !lost
				lost = lost || first
				return first
			}
			_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
				number, err := strconv.Atoi(m.ID)
				if err != nil {
					return err
				}
				mu.Lock()
				running[m.Recipient]++
				alone := running[m.Recipient] == 1
				begun = append(begun, number)
				mu.Unlock()
				assert.True(t, alone, "two at once for one recipient")
				<-time.After(plans[number].took)
				mu.Lock()
				running[m.Recipient]--
				mu.Unlock()
				switch p := plans[number]; {
				case p.permanent:
					return retry.Permanent(errDown)
				case len(f.attempts(m.ID)) <= p.failures:
					return errDown
				}
				return nil
			}, config)
			for i, p := range plans {
				f.publish(delivery.Message{ID: strconv.Itoa(i), Recipient: strconv.Itoa(p.recipient), Priority: p.priority})
			}
			wait(24 * time.Hour)
			require.NoError(t, stop())
			f.empty()
			require.NoError(t, f.transport.Close())

			last := map[string]int{}
			for _, number := range begun {
				of := fmt.Sprint(plans[number].recipient, plans[number].priority)
				if before, ok := last[of]; ok {
					require.LessOrEqual(t, before, number, "overtaken, in %v", begun)
				}
				last[of] = number
			}
			for i, p := range plans {
				want := min(p.failures, 3) + 1
				if p.permanent {
					want = 1
				}
				require.Len(t, f.attempts(strconv.Itoa(i)), want, "message %d", i)
			}
		})
	})
}

func TestOrderedHeadHoldsUpItsOwnRecipientOnly(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered = true
		config.Concurrency = 2
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "bad0" {
				return errDown
			}
			return nil
		}, config)
		for i := range 20 {
			f.publish(
				delivery.Message{ID: fmt.Sprint("bad", i), Recipient: "bad"},
				delivery.Message{ID: fmt.Sprint("good", i), Recipient: fmt.Sprint("good", i)})
		}
		wait(time.Second / 2)
		for i := range 20 {
			assert.Equal(t, []int{1}, f.attempts(fmt.Sprint("good", i)))
		}
		assert.Empty(t, f.attempts("bad1"))
		wait(time.Minute)
		assert.Equal(t, []int{1, 2, 3, 4}, f.attempts("bad0"))
		for i := 1; i < 20; i++ {
			assert.Equal(t, []int{1}, f.attempts(fmt.Sprint("bad", i)))
		}
		assert.Equal(t, delivery.ReasonExhausted, f.sink.only(t).Reason)
		require.NoError(t, stop())
		f.empty()
	})
}

func TestOrderedHoldExceeded(t *testing.T) {
	for name, policy := range map[string]delivery.HoldPolicy{"dead letter": delivery.HoldDeadLetter, "pass by": delivery.HoldPassBy} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Ordered = true
				config.MaxHold = 2 * time.Second // the first retry fits, the second does not
				config.OnHoldExceeded = policy
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					if m.ID == "head" {
						return errDown
					}
					return nil
				}, config)
				head, next := to("head"), to("next")
				f.publish(head, next)
				wait(1100 * time.Millisecond)
				assert.Equal(t, []int{1, 2}, f.attempts("head"))
				assert.Equal(t, []int{1}, f.attempts("next"), "let go")
				wait(time.Hour)
				if policy == delivery.HoldDeadLetter {
					assert.Equal(t, []int{1, 2}, f.attempts("head"))
				} else {
					assert.Equal(t, []int{1, 2, 3, 4}, f.attempts("head"), "all its retries, out of order")
				}
				letter := f.sink.only(t)
				assert.Equal(t, delivery.ReasonExhausted, letter.Reason)
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

func TestOrderedCrowdBehindAFailingHead(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered = true
		config.Prefetch = 20
		config.OnHoldExceeded = delivery.HoldPassBy
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.Recipient == "bad" {
				return errDown
			}
			return nil
		}, config)
		for i := range 200 {
			f.publish(delivery.Message{ID: fmt.Sprint("bad", i), Recipient: "bad"})
		}
		f.publish(delivery.Message{ID: "good", Recipient: "good"})
		wait(3 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("good"), "is not kept waiting for the retries of 200 others")
		wait(time.Hour)
		require.NoError(t, stop())
		assert.Equal(t, 200, f.sink.count())
		f.empty()
	})
}

func TestOrderedSurvivesALostLease(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered = true
		config.IdempotencyLease = 3 * time.Second
		var order []string
		var cause error
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			order = append(order, m.ID)
			if len(order) > 1 {
				return nil
			}
			f.store.down.Store(true)
			<-ctx.Done()
			cause = context.Cause(ctx)
			f.store.down.Store(false)
			return ctx.Err()
		}, config)
		f.publish(to("a"), to("b"))
		wait(time.Minute)
		require.NoError(t, stop())
		require.ErrorIs(t, cause, idempotency.ErrLost)
		assert.Equal(t, []string{"a", "a", "b"}, order)
		f.empty()
	})
}

// Neither does a crowd behind it change what becomes of a message whose leases get
// lost again and again.
func TestOrderedSurvivesLostLeasesInACrowd(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered, config.Prefetch = true, 4
		config.IdempotencyLease = 3 * time.Second
		var order []string
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			order = append(order, m.ID)
			if len(order) > 6 {
				return nil
			}
			f.store.down.Store(true)
			<-ctx.Done()
			f.store.down.Store(false)
			return ctx.Err()
		}, config)
		for i := range 8 {
			f.publish(delivery.Message{ID: strconv.Itoa(i), Recipient: "r"})
		}
		wait(10 * time.Minute)
		require.NoError(t, stop())
		assert.Equal(t, []string{"0", "0", "0", "0", "0", "0", "0", "1", "2", "3", "4", "5", "6", "7"}, order)
		assert.Zero(t, f.sink.count())
		f.empty()
	})
}

func TestOrderedDrainGivesBackWhoStandsInLine(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered = true
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			<-time.After(10 * time.Second)
			return nil
		}, config)
		f.publish(to("a"), to("b"), to("c"))
		wait(time.Second)
		require.NoError(t, stop())
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 2, depths[delivery.Normal].Messages)
	})
}
