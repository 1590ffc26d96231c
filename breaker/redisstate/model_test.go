package redisstate

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// Whatever happens to whom, and whoever hears of it first: soon all agree with
// each other and with Redis, and at most one may probe.
func TestFleetAgrees(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	rapid.Check(t, func(t *rapid.T) {
		config := breaker.Config{Name: rapid.StringMatching(`[a-z]{12}`).Draw(t, "name"), SampleSize: 1, Probes: 2, OpenFor: time.Hour}
		all := make([]*instance, 3)
		for n := range all {
			all[n] = &instance{
				Breaker: breaker.New(config),
				fleet:   New(client, Config{Prefix: prefix, Instance: string(rune('a' + n)), Timeout: patience, Lease: time.Hour}),
			}
			require.NoError(t, all[n].fleet.Share(all[n].Breaker))
			defer all[n].ForceClosed(0)
		}
		require.NoError(t, client.Del(context.Background(), all[0].fleet.key(config.Name)).Err())
		ctx := context.Background()
		var permits []breaker.Permit
		events := map[string]func(*instance){
			"ask": func(i *instance) {
				if permit, err := i.Allow(); err == nil {
					permits = append(permits, permit)
				}
			},
			"report": func(*instance) {
				if len(permits) > 0 {
					permits[0].Done(rapid.SampledFrom([]breaker.Outcome{breaker.Success, breaker.Success, breaker.Failure}).Draw(t, "outcome"))
					permits = permits[1:]
				}
			},
			"sync":         func(i *instance) { syncAll(t, i) },
			"force open":   func(i *instance) { require.NoError(t, i.fleet.ForceOpen(ctx, config.Name, Force{})) },
			"force closed": func(i *instance) { require.NoError(t, i.fleet.ForceClosed(ctx, config.Name, Force{For: time.Hour})) },
			"release":      func(i *instance) { require.NoError(t, i.fleet.Release(ctx, config.Name, "")) },
		}
		names := []string{"ask", "ask", "ask", "report", "report", "report", "sync", "force open", "force closed", "release", "release"}
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			for range rapid.IntRange(1, 5).Draw(t, "events") {
				event := rapid.SampledFrom(names).Draw(t, "event")
				events[event](rapid.SampledFrom(all).Draw(t, "instance"))
			}
			for range 3 {
				syncAll(t, rapid.Permutation(slices.Clone(all)).Draw(t, "order")...)
			}
			view := all[0].view(t)
			leased := 0
			for n, i := range all {
				status := i.Status()
				for status.State == breaker.Open && !status.Forced && time.Until(status.Until) < time.Minute {
					status = i.Status() // nanoseconds from half-open
				}
				require.Equal(t, view.State, status.State, n)
				require.Equal(t, view.Forced, status.Forced, n)
				m := i.fleet.members[0]
				require.Nil(t, m.unheardChange(), n)
				if m.leased {
					leased++
					require.Equal(t, i.fleet.config.Instance, view.Prober)
				} else if status.State == breaker.HalfOpen {
					_, err := i.Allow()
					require.ErrorIs(t, err, breaker.ErrOpen)
				}
			}
			require.LessOrEqual(t, leased, 1)
		}
	})
}
