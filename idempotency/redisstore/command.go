package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/retry/lastfault"
)

// command is one command of a pipeline, and the calls that it is for: one call, or
// many completions in one script on many keys, because most of what a script costs
// is its start.
type command struct {
	calls []*call
	*redis.Cmd
}

// maxKeys bounds for how long a script keeps the server busy.
const maxKeys = 256

// commandsFor makes the commands of a pipeline. Calls that nobody waits for any
// more are left out.
func commandsFor(calls []*call, completeMany *script) []command {
	commands := make([]command, 0, len(calls))
	var completions []*call
	for i, c := range calls {
		switch {
		case c.abandoned.Load():
		case c.form.hasManyKeys():
			completions = append(completions, c)
		default:
			commands = append(commands, command{calls[i : i+1], c.command()})
		}
	}
	for len(completions) > 0 {
		first, n := completions[0], 1
		for n < min(len(completions), maxKeys) && completions[n].fits(first) {
			n++
		}
		together := completions[:n]
		completions = completions[n:]
		if n == 1 {
			first.form = byHash
			commands = append(commands, command{together, first.command()})
			continue
		}
		commands = append(commands, command{together, manyKeysCommand(completeMany, together)})
	}
	return commands
}

// fits says whether two completions can be one command.
func (c *call) fits(other *call) bool {
	return c.form == other.form && c.milliseconds == other.milliseconds
}

func manyKeysCommand(script *script, calls []*call) *redis.Cmd {
	args := make([]any, 0, 4+2*len(calls))
	if calls[0].form == manyByHash {
		args = append(args, "evalsha", &script.sha)
	} else {
		args = append(args, "eval", &script.source)
	}
	args = append(args, len(calls))
	for _, c := range calls {
		args = append(args, &c.key)
	}
	args = append(args, &calls[0].milliseconds)
	for _, c := range calls {
		args = append(args, &c.token)
	}
	return redis.NewCmd(context.Background(), args...)
}

// eachReply reads the reply and gives every call its part.
func (c command) eachReply(take func(c *call, reply any, err error)) {
	reply, err := c.Result()
	if !c.calls[0].form.hasManyKeys() {
		take(c.calls[0], reply, err)
		return
	}
	replies, _ := reply.([]any)
	if err == nil && len(replies) != len(c.calls) {
		err = fmt.Errorf("redisstore: Redis answered with an unexpected %T", reply)
	}
	for i, each := range c.calls {
		if err != nil {
			take(each, nil, err)
			continue
		}
		fault, _ := replies[i].(error)
		take(each, replies[i], fault)
	}
}

// firstFault is the first error of the commands that is no reply, or nil.
func firstFault(commands []command) error {
	for _, each := range commands {
		if err := each.Err(); err != nil && !lastfault.IsReply(err) {
			return err
		}
	}
	return nil
}

// refusesManyKeys says whether a server, or what stands before it, won't take many
// keys in one script: they are in different slots, or the user lacks a permission.
func refusesManyKeys(err error) bool {
	return redis.HasErrorPrefix(err, "CROSSSLOT") || redis.HasErrorPrefix(err, "NOPERM") || strings.HasPrefix(err.Error(), "ERR ")
}
