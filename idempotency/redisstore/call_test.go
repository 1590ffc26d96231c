package redisstore

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

// reply is an error that a server answers with.
type reply string

func (e reply) Error() string { return string(e) }
func (reply) RedisError()     {}

func TestNativeClaimsDecideTheUsualCases(t *testing.T) {
	lost := errors.New("connection lost")
	for name, test := range map[string]struct {
		reply any
		err   error
		want  answer
		again bool
	}{
		"absent":           {err: redis.Nil, want: answer{found: idempotency.Answer{State: idempotency.Claimed, Holder: "token"}}},
		"leased, another":  {reply: "Lother", want: answer{found: idempotency.Answer{State: idempotency.Busy, Holder: "other"}}},
		"done":             {reply: "Dother", want: answer{found: idempotency.Answer{State: idempotency.Done, Holder: "other"}}},
		"done, own":        {reply: "Dtoken", want: answer{found: idempotency.Answer{State: idempotency.Done, Holder: "token"}}},
		"later retry":      {reply: "R4:other", want: answer{found: idempotency.Answer{State: idempotency.Stale, Holder: "other"}}},
		"leased, own":      {reply: "Ltoken", again: true},
		"this retry":       {reply: "R3:other", again: true},
		"earlier retry":    {reply: "R2:other", again: true},
		"retry of no form": {reply: "Rx:other", again: true},
		"foreign":          {reply: "x", again: true},
		"empty":            {reply: "", again: true},
		"GET not heeded":   {reply: "OK", again: true},
		"number":           {reply: int64(1), again: true},
		"nothing":          {again: true},
		"old server":       {err: reply("ERR syntax error"), again: true},
		"refused":          {err: reply("OOM"), want: answer{err: reply("OOM")}},
		"lost":             {err: lost, want: answer{err: lost}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCall(newScripts().claim, "key", "token", 3, time.Second)
			c.makeNative()
			got, ok := c.read(test.reply, test.err)
			assert.Equal(t, test.again, !ok)
			if ok {
				assert.Equal(t, test.want, got)
			}
		})
	}
}

func TestUnexpectedRepliesAreErrors(t *testing.T) {
	for _, value := range []string{"", "x", "Xtoken", "R", "R7", "Rx:y"} {
		_, _, ok := parse(value, "token")
		assert.False(t, ok, value)
	}
	scripts := newScripts()
	for script, replies := range map[*script][]any{
		scripts.claim: {"", "x", int64(0), int64(1), nil},
		scripts.renew: {"text", "Ltoken", int64(7), int64(-1), nil},
	} {
		for _, reply := range replies {
			got, ok := newCall(script, "key", "token", 0, time.Second).read(reply, nil)
			require.True(t, ok)
			require.ErrorContains(t, got.err, "unexpected", reply)
		}
	}
}

// A server that knows no script, whatever it is sent, is asked once with each
// form.
func TestEachFormIsTriedOnce(t *testing.T) {
	c := newCall(newScripts().claim, "key", "token", 0, time.Second)
	missing := reply("NOSCRIPT No matching script")
	for c.form = native; c.form < bySource; c.form++ {
		err := missing
		if c.form == native {
			err = "ERR syntax error"
		}
		_, ok := c.read(nil, err)
		require.False(t, ok)
	}
	got, ok := c.read(nil, missing)
	require.True(t, ok)
	require.Equal(t, missing, got.err)
}

// text is a command as it is sent.
func text(command *redis.Cmd) string {
	var words []string
	for _, arg := range command.Args() {
		words = append(words, fmt.Sprint(reflect.Indirect(reflect.ValueOf(arg))))
	}
	return strings.Join(words, " ")
}

func TestNextFormDependsOnTheRefusal(t *testing.T) {
	missing, other := reply("NOSCRIPT No matching script"), reply("CROSSSLOT Keys in request don't hash to the same slot")
	assert.Equal(t, byHash, native.next(nil))
	assert.Equal(t, manyBySource, manyByHash.next(missing))
	assert.Equal(t, byHash, manyByHash.next(other))
	assert.Equal(t, byHash, manyBySource.next(missing))
	assert.Equal(t, byHash, manyBySource.next(other))
	assert.Equal(t, bySource, byHash.next(missing))

	c := newCall(newScripts().complete, "key", "token", 0, time.Second)
	c.form = manyByHash
	for _, refusal := range []error{missing, other, reply("WRONGTYPE")} {
		_, ok := c.read(nil, refusal)
		assert.False(t, ok, refusal)
	}
	lost := errors.New("connection lost")
	got, ok := c.read(nil, lost)
	assert.True(t, ok)
	assert.Equal(t, lost, got.err)
}

func TestCommandsAsTheyAreSent(t *testing.T) {
	scripts := newScripts()
	c := newCall(scripts.claim, "key", "token", 3, time.Second)
	c.makeNative()
	for form, want := range map[form]string{
		native:   "set key Ltoken nx get px 1000",
		byHash:   "evalsha " + scripts.claim.sha + " 1 key token 1000 3",
		bySource: "eval " + scripts.claim.source + " 1 key token 1000 3",
	} {
		c.form = form
		assert.Equal(t, want, text(c.command()))
	}
	for script, want := range map[*script]string{
		scripts.renew:    " 1 key token 1000",
		scripts.complete: " 1 key token 1000",
		scripts.schedule: " 1 key token 1000 3",
		scripts.release:  " 1 key token",
	} {
		assert.Equal(t, "evalsha "+script.sha+want, text(newCall(script, "key", "token", 3, time.Second).command()))
	}
}

func FuzzParse(f *testing.F) {
	for _, value := range []string{"", "Ltoken", "Lother", "D", "R1:token", "R-1:a:b", "Rx"} {
		f.Add(value, "token")
	}
	f.Fuzz(func(t *testing.T, value, token string) {
		found, _, ok := parse(value, token)
		if ok && found.State == idempotency.Claimed && found.Holder != token {
			t.Fatalf("%q claims for %q", value, token)
		}
	})
}

func TestMillisecondsRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, 1<<63 - 1: 9223372036855,
	} {
		assert.Equal(t, want, milliseconds(d))
	}
}
