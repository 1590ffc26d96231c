package redisstate

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func TestForceOpen(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	all := instances(t, client, 2, breaker.Config{})
	a, b := all[0], all[1]
	syncAll(t, all...)
	// A console has no breaker of its own.
	console := New(client, Config{Instance: "console", Timeout: patience})
	var log strings.Builder
	a.fleet.config.Logger = slog.New(slog.NewTextHandler(&log, nil))

	require.NoError(t, console.ForceOpen(t.Context(), a.Name(), Force{By: "ops", Reason: "maintenance"}))
	syncAll(t, all...)
	for _, i := range all {
		assert.Equal(t, &breaker.OpenError{Name: a.Name(), Forced: true}, i.refuses(t))
	}
	assert.Contains(t, log.String(), `state=open by=ops reason=maintenance`)
	view := b.view(t)
	assert.WithinDuration(t, time.Now(), view.At, patience)
	view.At = time.Time{}
	assert.Equal(t, View{Known: true, State: breaker.Open, By: "ops", Forced: true, Reason: "maintenance"}, view)
	ttl, err := client.TTL(t.Context(), a.fleet.key(a.Name())).Result()
	require.NoError(t, err)
	assert.Equal(t, time.Duration(-1), ttl, "kept until released")

	// An instance that starts finds it before its first call.
	c := join(t, client, "c", breaker.Config{Name: a.Name(), SampleSize: 1, OpenFor: time.Hour})
	syncAll(t, c)
	assert.True(t, c.refuses(t).Forced)

	require.NoError(t, console.Release(t.Context(), a.Name(), ""))
	syncAll(t, a, b, c)
	reaches(t, breaker.HalfOpen, a, b, c)
	view = b.view(t)
	assert.Equal(t, breaker.HalfOpen, view.State)
	assert.Equal(t, "console", view.By)
	assert.False(t, view.Forced)
	a.wants(t)
	syncAll(t, a)
	a.call(t, breaker.Success)
	syncAll(t, a, b, c)
	requireState(t, breaker.Closed, a, b, c)
	ttl, err = client.TTL(t.Context(), a.fleet.key(a.Name())).Result()
	require.NoError(t, err)
	assert.Greater(t, ttl, 23*time.Hour, "and forgotten some time")
	assert.LessOrEqual(t, ttl, 24*time.Hour)
	require.NoError(t, console.Release(t.Context(), a.Name(), ""), "released twice")
	assert.Equal(t, breaker.Closed, a.view(t).State)
}

func TestForceClosed(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	a.call(t, breaker.Failure)
	syncAll(t, all...)
	requireState(t, breaker.Open, all...)
	require.NoError(t, b.fleet.ForceClosed(t.Context(), a.Name(), Force{}))
	before := b.view(t)
	assert.Equal(t, "b", before.By)
	syncAll(t, all...)
	requireState(t, breaker.Closed, all...)
	for range 5 {
		a.call(t, breaker.Failure)
		b.call(t, breaker.Failure)
	}
	syncAll(t, all...)
	requireState(t, breaker.Closed, all...)

	// One that hasn't heard yet trips: that doesn't reach the others, and ends
	// as soon as it hears.
	late := join(t, b.fleet.client, "late", breaker.Config{Name: a.Name(), SampleSize: 1, OpenFor: time.Hour})
	late.call(t, breaker.Failure)
	syncAll(t, late, a)
	requireState(t, breaker.Closed, late, a)
	assert.True(t, a.view(t).Forced)

	// A force replaces a force.
	require.NoError(t, b.fleet.ForceOpen(t.Context(), a.Name(), Force{}))
	syncAll(t, all...)
	requireState(t, breaker.Open, all...)
	require.NoError(t, b.fleet.ForceClosed(t.Context(), a.Name(), Force{}))
	syncAll(t, all...)
	require.NoError(t, b.fleet.Release(t.Context(), a.Name(), "ops"))
	syncAll(t, all...)
	requireState(t, breaker.Closed, all...)
	assert.False(t, a.Status().Forced)
	assert.Equal(t, "ops", a.view(t).By)
	a.call(t, breaker.Failure)
	syncAll(t, a, b, late)
	requireState(t, breaker.Open, a, b, late)
}

func TestForceForATime(t *testing.T) {
	for state, end := range map[breaker.State]breaker.State{breaker.Open: breaker.HalfOpen, breaker.Closed: breaker.Closed} {
		t.Run(state.String(), func(t *testing.T) {
			all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
			a, b := all[0], all[1]
			force := map[breaker.State]func(context.Context, string, Force) error{breaker.Open: a.fleet.ForceOpen, breaker.Closed: a.fleet.ForceClosed}[state]
			require.NoError(t, force(t.Context(), a.Name(), Force{For: time.Hour}))
			syncAll(t, all...)
			requireState(t, state, all...)
			assert.Equal(t, 60, minutes(a))
			assert.Equal(t, 60, minutes(b))
			assert.WithinDuration(t, time.Now().Add(time.Hour), a.view(t).Until, patience)
			assert.Equal(t, state, a.view(t).State)

			require.NoError(t, force(t.Context(), a.Name(), Force{For: 300 * time.Millisecond, By: "ops"}))
			syncAll(t, a) // b never hears of this one
			require.Eventually(t, func() bool { return !a.view(t).Forced && !a.Status().Forced }, patience, time.Millisecond)
			reaches(t, end, a)
			requireState(t, state, b)
			syncAll(t, all...)
			reaches(t, end, all...)
			assert.False(t, b.Status().Forced)
			assert.Equal(t, end, a.view(t).State)
			assert.Equal(t, "ops", a.view(t).By)
		})
	}
}

// A breaker's own force is this instance's alone, and the fleet's is stronger.
func TestForceOfOneInstance(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	syncAll(t, all...)
	a.ForceOpen(0)
	syncAll(t, all...)
	requireState(t, breaker.Closed, b)
	require.False(t, b.view(t).Known)
	a.ForceClosed(0)
	b.call(t, breaker.Failure)
	syncAll(t, b, a)
	requireState(t, breaker.Closed, a)
	a.Release()
	syncAll(t, a)
	requireState(t, breaker.Open, a) // it has caught up

	require.NoError(t, b.fleet.ForceOpen(t.Context(), a.Name(), Force{}))
	syncAll(t, all...)
	a.ForceClosed(0)
	syncAll(t, all...)
	requireState(t, breaker.Closed, a)
	requireState(t, breaker.Open, b)
	require.NoError(t, b.fleet.Release(t.Context(), a.Name(), ""))
	syncAll(t, all...)
	reaches(t, breaker.HalfOpen, all...)
}

func TestOperatorsFaults(t *testing.T) {
	fleet := New(connect(t, shared.RedisURL(t)), Config{Prefix: servers.Unique(t), Timeout: patience})
	long := strings.Repeat("x", 1001)
	ctx := t.Context()
	for want, err := range map[string]error{
		"name is empty":                   fleet.ForceOpen(ctx, "", Force{}),
		"name has 1001":                   fleet.ForceClosed(ctx, long, Force{}),
		"Force.By has 1001":               fleet.Release(ctx, "name", long),
		"Force.Reason has 1001 bytes":     fleet.ForceOpen(ctx, "name", Force{Reason: long}),
		"Force.For is -1ns, want 0 to 87": fleet.ForceOpen(ctx, "name", Force{For: -1}),
		"Force.For is 8760h0m0.000000001": fleet.ForceOpen(ctx, "name", Force{For: 365*24*time.Hour + 1}),
	} {
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, want)
	}
	_, err := fleet.View(ctx, "")
	require.ErrorIs(t, err, ErrConfig)
	over, cancel := context.WithCancel(ctx)
	cancel()
	require.Equal(t, context.Canceled, fleet.ForceOpen(over, "name", Force{}))
	require.Equal(t, context.Canceled, fleet.Sync(over))
	var none context.Context
	_, err = fleet.View(none, "name")
	require.NoError(t, err)

	// What something else has put there is an error, not a record.
	require.NoError(t, fleet.client.Set(ctx, fleet.key("name"), "something else", time.Minute).Err())
	_, err = fleet.View(ctx, "name")
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "WRONGTYPE")
}

// One breaker's trouble is not the others'.
func TestOneRecordIsBroken(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	other := breaker.New(breaker.Config{Name: "other of " + a.Name(), SampleSize: 1})
	require.NoError(t, a.fleet.Share(other))
	t.Cleanup(func() { other.ForceClosed(0) })
	require.NoError(t, a.fleet.client.Set(t.Context(), a.fleet.key(other.Name()), "something else", time.Minute).Err())
	b.call(t, breaker.Failure)
	syncAll(t, b)
	require.ErrorIs(t, a.fleet.Sync(t.Context()), ErrUnavailable)
	requireState(t, breaker.Open, a)
	assert.False(t, a.fleet.isAway())
}

func TestUnusableFleets(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	var none *redis.Client
	for name, test := range map[string]struct {
		fleet *Fleet
		want  string
	}{
		"nil":        {nil, "Fleet is nil"},
		"zero":       {&Fleet{}, "Fleet is a zero value"},
		"no client":  {New(nil, Config{}), "client is nil"},
		"nil client": {New(none, Config{}), "client is nil"},
		"every":      {New(client, Config{Every: time.Millisecond}), "Every is 1ms, want 10ms to 1m0s"},
		"timeout":    {New(client, Config{Timeout: time.Hour}), "Timeout is 1h0m0s, want 1ms to 1m0s"},
		"lease":      {New(client, Config{Lease: time.Second}), "Lease is 1s, want 2 (Every + Timeout), which is 4s, to 1h0m0s"},
		"instance":   {New(client, Config{Instance: strings.Repeat("x", 1001)}), "Instance has 1001 bytes, want at most 1000"},
		"two faults": {New(client, Config{Every: 1, Timeout: 1}), "Timeout is 1ns"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, test.fleet.Err(), ErrConfig)
			require.ErrorContains(t, test.fleet.Err(), test.want)
			require.Equal(t, test.fleet.Err(), test.fleet.Run(t.Context()))
			require.Equal(t, test.fleet.Err(), test.fleet.Sync(t.Context()))
			require.Equal(t, test.fleet.Err(), test.fleet.Share())
			require.Equal(t, test.fleet.Err(), test.fleet.ForceOpen(t.Context(), "name", Force{}))
			require.Equal(t, test.fleet.Err(), test.fleet.Release(t.Context(), "name", ""))
		})
	}
	fleet := New(client, Config{})
	require.NoError(t, fleet.Err())
	assert.Equal(t, "barid:breaker:pay", fleet.key("pay"))
	assert.NotEqual(t, fleet.config.Instance, New(client, Config{}).config.Instance)
	assert.Equal(t, 22*time.Second, New(client, Config{Every: 10 * time.Second}).config.Lease)
}

func TestShareFaults(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	fleet := New(client, Config{})
	var none context.Context
	require.NoError(t, fleet.Sync(none), "nothing to do")
	require.NoError(t, fleet.Share(breaker.New(breaker.Config{Name: "there"})))
	set := breaker.NewSet(breaker.SetConfig{Breaker: breaker.Config{Name: "set"}})
	err := fleet.Share(
		breaker.New(breaker.Config{Name: "good"}),
		nil,
		breaker.New(breaker.Config{Name: "faulty", Probes: -1}),
		breaker.New(breaker.Config{}),
		set.Get("key"),
		breaker.New(breaker.Config{Name: "there"}),
		breaker.New(breaker.Config{Name: "good"}),
		breaker.New(breaker.Config{Name: strings.Repeat("x", 1001)}),
	)
	require.ErrorIs(t, err, ErrConfig)
	for _, want := range []string{
		"breaker 2 can't be used", "breaker 3 can't be used", "breaker 4 has no Name", `breaker 5 has Key "key"`,
		`breaker 6 is a second one of Name "there"`, `breaker 7 is a second one of Name "good"`, "breaker 8 has a Name of 1001 bytes",
	} {
		require.ErrorContains(t, err, want)
	}
	require.Len(t, fleet.members, 1)
	require.NoError(t, fleet.Share(breaker.New(breaker.Config{Name: "good"})))
}

func TestDecodeRefusesWhatTheScriptDoesNotAnswer(t *testing.T) {
	good := []string{"open", "event", "by", "1", "2", "", "", "", "0", "0", "", "", "0", "0"}
	r, err := decode(good)
	require.NoError(t, err)
	assert.Equal(t, record{state: "open", event: "event", by: "by", age: time.Millisecond, left: 2 * time.Millisecond}, r)
	_, err = decode(good[1:])
	require.ErrorIs(t, err, errAnswer)
	for _, number := range []int{3, 4, 8, 9} {
		bad := append([]string{}, good...)
		bad[number] = "x"
		_, err = decode(bad)
		require.ErrorIs(t, err, errAnswer)
	}
}
