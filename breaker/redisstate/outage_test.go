package redisstate

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// Redis that comes back empty gets back what instances still know.
func TestRedisRestartedAndEmpty(t *testing.T) {
	for name, test := range map[string]struct {
		begin func(t *testing.T, a *instance) error
		want  View
	}{
		"open": {
			func(t *testing.T, a *instance) error { a.call(t, breaker.Failure); return nil },
			View{Known: true, State: breaker.Open},
		},
		"forced open": {
			func(t *testing.T, a *instance) error {
				return a.fleet.ForceOpen(t.Context(), a.Name(), Force{By: "ops", Reason: "maintenance"})
			},
			View{Known: true, State: breaker.Open, Forced: true, By: "ops", Reason: "maintenance"},
		},
		"forced closed": {
			func(t *testing.T, a *instance) error {
				return a.fleet.ForceClosed(t.Context(), a.Name(), Force{For: time.Hour, By: "ops"})
			},
			View{Known: true, State: breaker.Closed, Forced: true, By: "ops"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := servers.StartRedis(t, servers.RedisConfig{})
			all := instances(t, connect(t, server.URL()), 3, breaker.Config{})
			run(t, all...)
			require.NoError(t, test.begin(t, all[0]))
			before := all[0].view(t)
			for _, i := range all {
				require.Eventually(t, func() bool {
					return i.State() == test.want.State && i.Status().Forced == test.want.Forced && i.view(t).Known
				}, patience, time.Millisecond)
			}

			require.NoError(t, server.Kill())
			require.Eventually(t, all[1].fleet.isAway, patience, time.Millisecond)
			requireState(t, test.want.State, all...)
			_, err := all[0].fleet.View(t.Context(), all[0].Name())
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, all[0].fleet.ForceOpen(t.Context(), all[0].Name(), Force{}), ErrUnavailable)
			require.NoError(t, server.Start(t.Context()))

			var view View
			require.Eventually(t, func() bool {
				view, err = all[0].fleet.View(context.Background(), all[0].Name())
				return err == nil && view.Known
			}, patience, time.Millisecond)
			if !before.Until.IsZero() {
				assert.WithinDuration(t, before.Until, view.Until, time.Minute)
			}
			if !test.want.Forced {
				view.By = ""
			}
			view.At, view.Until = time.Time{}, time.Time{}
			assert.Equal(t, test.want, view)
			late := join(t, all[0].fleet.client, "late", breaker.Config{Name: all[0].Name(), SampleSize: 1})
			syncAll(t, late)
			requireState(t, test.want.State, append(all, late)...)
		})
	}
}

// While Redis is paused each instance decides for itself, and takes no longer
// over it; when it goes on so does the sharing.
func TestRedisPaused(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	// A client as hosts bring it: its own deadlines come much later.
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: 2 * time.Second})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	all := instances(t, client, 2, breaker.Config{OpenFor: 50 * time.Millisecond})
	a, b := all[0], all[1]
	var log locked
	a.fleet.config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	for _, i := range all {
		i.fleet.config.Timeout = 500 * time.Millisecond // which a slow machine may need, too
	}
	run(t, all...)
	require.Eventually(t, func() bool {
		view, err := a.fleet.View(context.Background(), a.Name())
		return err == nil && view == View{} && !a.fleet.isAway()
	}, patience, time.Millisecond)

	require.NoError(t, server.Pause())
	a.call(t, breaker.Failure)
	reaches(t, breaker.HalfOpen, a)
	require.Eventually(t, a.fleet.isAway, patience, time.Millisecond)
	requireState(t, breaker.Closed, b)
	require.NoError(t, a.Wait(t.Context()), "probes for itself")
	permit, err := a.Allow()
	require.NoError(t, err)
	a.wants(t)
	permit.Done(breaker.Success)
	requireState(t, breaker.Closed, a)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = a.fleet.View(short, a.Name())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, ErrUnavailable)
	_, err = a.fleet.View(t.Context(), a.Name())
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "not the caller's")

	require.NoError(t, server.Resume())
	require.Eventually(t, func() bool { return !a.fleet.isAway() && !b.fleet.isAway() }, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		return b.fleet.ForceOpen(context.Background(), a.Name(), Force{}) == nil
	}, patience, 10*time.Millisecond)
	reaches(t, breaker.Open, a, b)
	require.Eventually(t, func() bool {
		return strings.Contains(log.String(), "breakers not shared") && strings.Contains(log.String(), "breakers shared again")
	}, patience, time.Millisecond)
}

// locked is a log that is read while it is written.
type locked struct{ text atomic.Value }

func (l *locked) Write(line []byte) (int, error) {
	l.text.Store(l.String() + string(line))
	return len(line), nil
}

func (l *locked) String() string {
	text, _ := l.text.Load().(string)
	return text
}

// What happened here while Redis was away is told when it is back.
func TestTrippedWhileRedisIsAway(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	all := instances(t, connect(t, server.URL()), 2, breaker.Config{})
	syncAll(t, all...)
	require.NoError(t, server.Stop())
	all[0].call(t, breaker.Failure)
	require.ErrorIs(t, all[0].fleet.Sync(t.Context()), ErrUnavailable)
	require.NoError(t, server.Start(t.Context()))
	require.Eventually(t, func() bool { return all[0].fleet.Sync(context.Background()) == nil }, patience, 10*time.Millisecond)
	syncAll(t, all[1])
	requireState(t, breaker.Open, all...)
}

// unreachable is a client that counts how often it is tried in vain. hang has
// it wait for the context.
func unreachable(t *testing.T, hang bool) (*redis.Client, *atomic.Int64) {
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	away := &away{hang: hang}
	client.AddHook(away)
	return client, &away.tries
}

type away struct {
	hang  bool
	tries atomic.Int64
}

func (*away) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*away) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (a *away) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		a.tries.Add(1)
		err := errors.New("unreachable")
		if a.hang {
			<-ctx.Done()
			err = ctx.Err()
		}
		for _, c := range commands {
			c.SetErr(err)
		}
		return err
	}
}

func TestBackoffWhileRedisIsAway(t *testing.T) {
	for name, hang := range map[string]bool{"refused": false, "hanging": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, tries := unreachable(t, hang)
				b := breaker.New(breaker.Config{Name: "pay", SampleSize: 1, OpenFor: time.Second})
				fleet := New(client, Config{})
				require.NoError(t, fleet.Share(b))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- fleet.Run(ctx) }()
				// However often the breaker changes.
				for range 600 {
					permit, err := b.Allow()
					require.NoError(t, err)
					permit.Done(breaker.Failure)
					time.Sleep(time.Second + 1)
					synctest.Wait()
					require.Equal(t, breaker.HalfOpen, b.State())
				}
				assert.GreaterOrEqual(t, tries.Load(), int64(600/30))
				assert.LessOrEqual(t, tries.Load(), int64(600/11+10))
				cancel()
				require.NoError(t, <-ended)
				b.Reset()
			})
		})
	}
}

func TestBackoffIsNoShorterThanEvery(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: maxBackoff, 6: maxBackoff, 1000: maxBackoff,
	} {
		for range 100 {
			got := backoff(time.Second, failures)
			require.LessOrEqual(t, got, want)
			require.GreaterOrEqual(t, got, max(time.Second, want/2-time.Microsecond)) // which rounding may take
		}
	}
	assert.Equal(t, time.Minute, backoff(time.Minute, 7), "no sooner than Every, and no later")
}

// An instance whose clock runs wild is no matter: none but Redis's is compared.
func TestNoClockIsSent(t *testing.T) {
	c := command{key: "key", op: opTrip, id: "id", by: "by", length: time.Nanosecond, known: "known", token: "token", force: "force", reason: "reason", lost: true}
	assert.Equal(t, []any{"trip", "id", "by", int64(1), "known", "token", "force", "reason", "1"}, c.args())
	assert.Equal(t, []any{"read", "", "", int64(0), "", "", "", "", "0"}, command{op: opRead}.args())
}
