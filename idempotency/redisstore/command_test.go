package redisstore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// manyKeys counts the scripts with more than one key, and refuses them while slotted
// is set, as a server does whose keys are in different slots.
type manyKeys struct {
	slotted        atomic.Bool
	count, refused atomic.Int64
}

func (*manyKeys) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*manyKeys) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (m *manyKeys) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		var taken []redis.Cmder
		for _, command := range commands {
			if args := command.Args(); command.Name() == "evalsha" && args[2] != 1 {
				m.count.Add(1)
				if m.slotted.Load() {
					m.refused.Add(1)
					command.SetErr(reply("CROSSSLOT Keys in request don't hash to the same slot"))
					continue
				}
			}
			taken = append(taken, command)
		}
		if len(taken) == 0 {
			return commands[0].Err()
		}
		return next(ctx, taken)
	}
}

// completeAll completes keys at once, with "token", and returns what became of
// each.
func completeAll(t *testing.T, store *redisstore.Store, keys []string) map[string]string {
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		became = map[string]string{}
		start  = make(chan struct{})
	)
	for _, key := range keys {
		all.Go(func() {
			<-start
			completion, err := store.Complete(t.Context(), key, "token", 2*long)
			mu.Lock()
			defer mu.Unlock()
			became[key] = completion.String()
			if err != nil {
				became[key] = err.Error()
			}
		})
	}
	close(start)
	all.Wait()
	return became
}

// Completions that share a command are answered each for itself.
func TestCompletionsShareACommand(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	var scripts manyKeys
	client.AddHook(&scripts)
	prefix := servers.Unique(t) + ":"
	store := open(t, client, redisstore.Config{Prefix: prefix})
	ctx := t.Context()
	const each = 20
	states := []struct {
		name, value, want string
		left              idempotency.Answer // for another
	}{
		{name: "absent", want: "late", left: idempotency.Answer{State: idempotency.Done, Holder: "token"}},
		{name: "leased, own", value: "Ltoken", want: "in time", left: idempotency.Answer{State: idempotency.Done, Holder: "token"}},
		{name: "leased, another's", value: "Lother", want: idempotency.ErrLost.Error(), left: idempotency.Answer{State: idempotency.Busy, Holder: "other"}},
		{name: "retry, own", value: "R3:token", want: "in time", left: idempotency.Answer{State: idempotency.Done, Holder: "token"}},
		{name: "retry, another's", value: "R3:other", want: idempotency.ErrLost.Error(), left: idempotency.Answer{State: idempotency.Stale, Holder: "other"}},
		{name: "done, another's", value: "Dother", want: "in time", left: idempotency.Answer{State: idempotency.Done, Holder: "other"}},
		{name: "foreign", value: "x", want: idempotency.ErrLost.Error()},
		{name: "foreign retry", value: "R3", want: idempotency.ErrLost.Error()},
		{name: "no string", want: "WRONGTYPE"},
	}
	var keys []string
	for _, state := range states {
		for i := range each {
			key := fmt.Sprint(state.name, i)
			keys = append(keys, key)
			if state.value != "" {
				require.NoError(t, client.Set(ctx, prefix+key, state.value, long).Err())
			}
			if state.name == "no string" {
				require.NoError(t, client.SAdd(ctx, prefix+key, "x").Err())
				t.Cleanup(func() { client.Del(context.WithoutCancel(ctx), prefix+key) })
			}
		}
	}
	became := completeAll(t, store, keys)
	assert.Positive(t, scripts.count.Load(), "some shared a command")
	for _, state := range states {
		for i := range each {
			key := fmt.Sprint(state.name, i)
			assert.Contains(t, became[key], state.want, key)
			if state.left.State != 0 {
				requireAnswer(t, store, key, "third", state.left)
			}
			if state.left.Holder == "token" {
				assert.InDelta(t, 2*long, client.PTTL(ctx, prefix+key).Val(), float64(time.Minute))
			}
		}
	}
}

func TestCompletionsOfOneKeyShareACommand(t *testing.T) {
	store := open(t, connect(t, shared.RedisURL(t)), redisstore.Config{})
	requireClaimed(t, store, "key", "token")
	keys := make([]string, 50)
	for i := range keys {
		keys[i] = "key"
	}
	assert.Equal(t, map[string]string{"key": "in time"}, completeAll(t, store, keys))
}

func TestCompletionsSurviveAScriptFlush(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	for round := range 3 {
		var keys []string
		want := map[string]string{}
		for i := range 100 {
			key := fmt.Sprint(round, i)
			requireClaimed(t, store, key, "token")
			keys, want[key] = append(keys, key), "in time"
		}
		require.NoError(t, client.ScriptFlush(t.Context()).Err())
		assert.Equal(t, want, completeAll(t, store, keys))
	}
}

// What looks like one server may be a node of a cluster, or a proxy of many.
func TestKeysInDifferentSlotsAreCompletedOneByOne(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	var scripts manyKeys
	scripts.slotted.Store(true)
	client.AddHook(&scripts)
	store := open(t, client, redisstore.Config{})
	for round := range 3 {
		claimAll(t, store, fmt.Sprint("round ", round), 200)
	}
	refused := scripts.refused.Load()
	assert.Positive(t, refused)
	claimAll(t, store, "later", 200)
	assert.Equal(t, refused, scripts.refused.Load(), "the store does not try again")
}

// The user has permission for no more than the single steps.
func TestAUserWithFewPermissionsCompletesKeysOneByOne(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "few", "on", ">secret", "~*",
		"+hello", "+auth", "+client", "+get", "+set", "+del", "+pexpire", "+eval", "+evalsha").Err())
	options := patientOptions(t, server.URL())
	options.Username, options.Password = "few", "secret"
	client := redis.NewClient(options)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	var scripts manyKeys
	client.AddHook(&scripts)
	store := open(t, client, redisstore.Config{AllowEviction: true})
	claimAll(t, store, "key", 200)
	tried := scripts.count.Load()
	assert.Positive(t, tried)
	claimAll(t, store, "later", 200)
	assert.Equal(t, tried, scripts.count.Load(), "the store does not try again")
}
