package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry/lastfault"
)

// call is one step of the Store, asked for by one caller.
type call struct {
	script *script
	form   form
	// key has the prefix. lease is the value that a native claim leaves.
	key, token, lease string
	attempt           int
	milliseconds      int64
	// answered has room for the answer, so that giving it does not wait for the
	// caller.
	answered chan answer
	// abandoned is set when the caller's context has ended: there is no use in
	// sending.
	abandoned atomic.Bool
	// space is the memory of the command's arguments.
	space [8]any
}

func newCall(script *script, key, token string, attempt int, duration time.Duration) *call {
	return &call{
		script:       script,
		form:         byHash,
		key:          key,
		token:        token,
		attempt:      attempt,
		milliseconds: milliseconds(duration),
		answered:     make(chan answer, 1),
	}
}

// makeNative is for claims only.
func (c *call) makeNative() { c.form, c.lease = native, string(leased)+c.token }

// form is how a call is put to the server. A form that the server does not take is
// followed by another, see next.
type form int

const (
	// native is a claim as SET with NX and GET, which Redis takes together since
	// 7.0. It decides the usual cases, where a key is absent or another's, and costs
	// the server half of what the script does. In all others it changes nothing.
	native form = iota
	// manyByHash and manyBySource are completions of many keys in one script.
	manyByHash
	manyBySource
	// byHash and bySource are a script on one key, by the digest of its text or by
	// its text.
	byHash
	bySource
)

func (f form) hasManyKeys() bool { return f == manyByHash || f == manyBySource }

// next is the form to try when a server refused this one.
func (f form) next(refusal error) form {
	switch {
	case f == native:
		return byHash
	case f == manyByHash && !isMissing(refusal):
		return byHash
	}
	return f + 1
}

// isMissing says whether the server does not have the script.
func isMissing(err error) bool { return err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") }

// isSyntaxError says whether the server does not know the form.
func isSyntaxError(err error) bool { return redis.HasErrorPrefix(err, "syntax error") }

// answer is what became of a call: what claim found, or one of the numbers that
// the other scripts answer with.
type answer struct {
	found  idempotency.Answer
	number int64
	err    error
}

// command is the call as Redis wants it, unless the call shares a command with
// others. The arguments are pointers, where they can be, because those need no
// memory of their own.
func (c *call) command() *redis.Cmd {
	args := c.space[:0]
	keyPosition := int8(3)
	switch c.form { //nolint:exhaustive // calls with many keys share a command
	case native:
		args = append(args, "set", &c.key, &c.lease, "nx", "get", "px", &c.milliseconds)
		keyPosition = 1
	case byHash:
		args = append(args, "evalsha", &c.script.sha, 1, &c.key)
	case bySource:
		args = append(args, "eval", &c.script.source, 1, &c.key)
	}
	if c.form != native {
		args = append(args, &c.token, &c.milliseconds, &c.attempt)[:len(args)+c.script.arguments]
	}
	command := redis.NewCmd(context.Background(), args...)
	command.SetFirstKeyPos(keyPosition)
	return command
}

// read makes an answer of a reply. It returns false when the call has to be put
// to the server in the next form.
func (c *call) read(reply any, err error) (answer, bool) {
	if c.form == native {
		return c.readNative(reply, err)
	}
	switch {
	case err == nil:
	case c.form.hasManyKeys():
		return answer{err: err}, !lastfault.IsReply(err) // one call's fault is not the others'
	default:
		return answer{err: err}, c.form == bySource || !isMissing(err)
	}
	switch reply := reply.(type) {
	case string:
		if found, _, ok := parse(reply, c.token); ok && c.script.answersValue {
			return answer{found: found}, true
		}
	case int64:
		if reply >= answerLost && reply <= answerLate && !c.script.answersValue {
			return answer{number: reply}, true
		}
	}
	return answer{err: fmt.Errorf("redisstore: Redis answered with an unexpected %T", reply)}, true
}

// readNative leaves to the script what may need another change: a lease of the
// caller's own, a fence that lets the attempt pass, and what is no value of ours.
func (c *call) readNative(reply any, err error) (answer, bool) {
	switch {
	case errors.Is(err, redis.Nil): // there was nothing before
		return answer{found: idempotency.Answer{State: idempotency.Claimed, Holder: c.token}}, true
	case isSyntaxError(err):
		return answer{}, false
	case err != nil:
		return answer{err: err}, true
	}
	value, _ := reply.(string)
	found, scheduled, ok := parse(value, c.token)
	if !ok || found.State == idempotency.Claimed || found.State == idempotency.Stale && c.attempt >= scheduled {
		return answer{}, false
	}
	return answer{found: found}, true
}

// parse reads a key's value on behalf of the holder of token. Of a fence it also
// returns which attempt is scheduled.
func parse(value, token string) (found idempotency.Answer, scheduled int, ok bool) {
	if value == "" {
		return idempotency.Answer{}, 0, false
	}
	holder := value[1:]
	switch value[0] {
	case leased:
		if holder == token {
			return idempotency.Answer{State: idempotency.Claimed, Holder: holder}, 0, true
		}
		return idempotency.Answer{State: idempotency.Busy, Holder: holder}, 0, true
	case done:
		return idempotency.Answer{State: idempotency.Done, Holder: holder}, 0, true
	case retrying:
		attempt, scheduler, found := strings.Cut(holder, ":")
		scheduled, err := strconv.Atoi(attempt)
		return idempotency.Answer{State: idempotency.Stale, Holder: scheduler}, scheduled, found && err == nil
	}
	return idempotency.Answer{}, 0, false
}

// milliseconds rounds up: Redis knows no shorter time, and refuses 0.
func milliseconds(d time.Duration) int64 {
	whole := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		whole++
	}
	return whole
}
