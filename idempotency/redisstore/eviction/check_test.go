package eviction_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency/redisstore/eviction"
)

func keepsAll(policy string) bool { return policy == "noeviction" }

func TestCheckGoesByThePolicy(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	require.NoError(t, eviction.Check(t.Context(), client, keepsAll), "what Redis has by default")
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"} {
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
		err := eviction.Check(t.Context(), client, keepsAll)
		var found *eviction.Error
		require.ErrorAs(t, err, &found)
		assert.Equal(t, eviction.Error{Node: server.Addr(), Policy: policy}, *found)
		require.EqualError(t, err, "Redis at "+server.Addr()+" has maxmemory-policy "+policy)
		require.NoError(t, eviction.Check(t.Context(), client, func(found string) bool { return found == policy }), "which may suit others")
	}
}

// user makes a user whom the server limits by rules, and returns its client.
func user(t *testing.T, server *servers.Redis, name string, rules ...any) *redis.Client {
	admin := connect(t, server.URL())
	require.NoError(t, admin.Do(t.Context(), append([]any{"ACL", "SETUSER", name, "on", ">s3cret", "~*", "+@all"}, rules...)...).Err())
	return connect(t, "redis://"+name+":s3cret@"+server.Addr())
}

// A server forbids commands by an ACL, or has them under another name or not at
// all.
func TestCheckAsksInfoWhereConfigIsRefused(t *testing.T) {
	for name, args := range map[string][]string{"forbidden": nil, "renamed": {"--rename-command", "CONFIG", "hidden"}} {
		t.Run(name, func(t *testing.T) {
			server := servers.StartRedis(t, servers.RedisConfig{Args: append(args, "--maxmemory-policy", "allkeys-lru")})
			rules := []any{"-config"}
			if args != nil {
				rules = nil
			}
			var found *eviction.Error
			limited := user(t, server, "limited", rules...)
			require.ErrorAs(t, eviction.Check(t.Context(), limited, keepsAll), &found)
			assert.Equal(t, eviction.Error{Node: server.Addr(), Policy: "allkeys-lru"}, *found)
			require.NoError(t, eviction.Check(t.Context(), limited, func(policy string) bool { return policy == "allkeys-lru" }))

			silent := user(t, server, "silent", append(rules, "-info")...)
			err := eviction.Check(t.Context(), silent, func(string) bool { return true })
			require.ErrorAs(t, err, &found)
			assert.Equal(t, server.Addr(), found.Node)
			assert.Empty(t, found.Policy)
			require.ErrorContains(t, err, "Redis at "+server.Addr()+" does not tell its maxmemory-policy: ")
			require.ErrorContains(t, err, "NOPERM")
			require.True(t, redis.IsPermissionError(err), "the server's own error is kept")
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

// A server that can't be asked has no bad policy, and its error shows no password.
func TestCheckBlamesNoPolicyForWhatIsNone(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	_ = user(t, server, "somebody")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	stranger := connect(t, "redis://somebody:wrong-s3cret@"+server.Addr())
	client := connect(t, server.URL())
	errWrongPassword := eviction.Check(t.Context(), stranger, keepsAll)
	errEnded := eviction.Check(ended, client, keepsAll)
	require.NoError(t, server.Stop())
	errAway := eviction.Check(t.Context(), client, keepsAll)

	require.ErrorContains(t, errWrongPassword, "WRONGPASS")
	require.ErrorIs(t, errEnded, context.Canceled)
	_, isNetwork := errors.AsType[net.Error](errAway)
	require.True(t, isNetwork, errAway)
	for _, err := range []error{errWrongPassword, errEnded, errAway} {
		var found *eviction.Error
		require.NotErrorAs(t, err, &found)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

// answers has the client's commands answered by something that is not Redis.
type answers struct {
	config map[string]string
	info   string
	errs   map[string]error
}

func (answers) DialHook(next redis.DialHook) redis.DialHook { return next }
func (answers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a answers) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, command redis.Cmder) error {
		switch command := command.(type) {
		case *redis.MapStringStringCmd:
			command.SetVal(a.config)
		case *redis.StringCmd:
			command.SetVal(a.info)
		}
		err := a.errs[command.Name()]
		command.SetErr(err)
		return err
	}
}

// reply is an error that a server answers with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestCheckOfServersThatAnswerOtherwise(t *testing.T) {
	const told = "# Memory\r\nused_memory:1\r\nmaxmemory_policy:noeviction\r\n"
	lost := errors.New("connection lost")
	for name, test := range map[string]struct {
		answers
		want   string // part of the error's text, empty for none
		policy bool   // whether it is an *Error
	}{
		"CONFIG has no such setting":            {answers: answers{info: told}},
		"CONFIG is refused in words of its own": {answers: answers{info: told, errs: map[string]error{"config": reply("ERR command CONFIG not support for your account")}}},
		"a policy, loading":                     {answers: answers{info: told, errs: map[string]error{"config": reply("LOADING Redis is loading")}}},
		"INFO does not tell":                    {answers: answers{info: "# Memory\r\n"}, want: "INFO memory has no maxmemory_policy", policy: true},
		"neither is allowed": {
			answers: answers{errs: map[string]error{"config": reply("ERR unknown command 'CONFIG'"), "info": reply("ERR unknown command 'INFO'")}},
			want:    "unknown command 'CONFIG'\nERR unknown command 'INFO'", policy: true,
		},
		"INFO is lost":     {answers: answers{errs: map[string]error{"config": reply("NOPERM"), "info": lost}}, want: "connection lost"},
		"CONFIG is lost":   {answers: answers{info: told, errs: map[string]error{"config": lost}}, want: "connection lost"},
		"both are loading": {answers: answers{errs: map[string]error{"config": reply("LOADING"), "info": reply("LOADING")}}, want: "LOADING"},
	} {
		t.Run(name, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: "nowhere:1"})
			t.Cleanup(func() { assert.NoError(t, client.Close()) })
			client.AddHook(test.answers)
			err := eviction.Check(t.Context(), client, keepsAll)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			var found *eviction.Error
			assert.Equal(t, test.policy, errors.As(err, &found))
		})
	}
}
