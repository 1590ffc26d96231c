package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// parcel is one command of a pipeline: one call, or many completions, which go as
// one script because most of what a script costs is its start.
type parcel struct {
	calls   []*call
	command *redis.Cmd
}

// maxJoint bounds for how long a script keeps the server busy.
const maxJoint = 256

// pack makes parcels of calls. Calls that nobody waits for any more are left out.
func pack(calls []*call, joint *script) []parcel {
	parcels := make([]parcel, 0, len(calls))
	var completions []*call
	for i, c := range calls {
		switch {
		case c.abandoned.Load():
		case c.form.joint():
			completions = append(completions, c)
		default:
			parcels = append(parcels, parcel{calls[i : i+1], c.command()})
		}
	}
	for len(completions) > 0 {
		first, n := completions[0], 1
		for n < min(len(completions), maxJoint) && completions[n].fits(first) {
			n++
		}
		together := completions[:n]
		completions = completions[n:]
		if n == 1 {
			first.form = byHash
			parcels = append(parcels, parcel{together, first.command()})
			continue
		}
		parcels = append(parcels, parcel{together, jointCommand(joint, together)})
	}
	return parcels
}

// fits says whether two joint calls can go as one.
func (c *call) fits(other *call) bool {
	return c.form == other.form && c.milliseconds == other.milliseconds
}

func jointCommand(joint *script, calls []*call) *redis.Cmd {
	args := make([]any, 0, 4+2*len(calls))
	if calls[0].form == jointByHash {
		args = append(args, "evalsha", &joint.sha)
	} else {
		args = append(args, "eval", &joint.source)
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

// open reads the reply and gives it to each call's take.
func (p parcel) open(take func(c *call, reply any, err error)) {
	reply, err := p.command.Result()
	if !p.calls[0].form.joint() {
		take(p.calls[0], reply, err)
		return
	}
	replies, _ := reply.([]any)
	if err == nil && len(replies) != len(p.calls) {
		err = fmt.Errorf("redisstore: Redis answered with an unexpected %T", reply)
	}
	for i, c := range p.calls {
		if err != nil {
			take(c, nil, err)
			continue
		}
		fault, _ := replies[i].(error)
		take(c, replies[i], fault)
	}
}

// refusesJoint tells that a server, or what stands before it, won't take many keys
// in one script: they are in different slots, or the user lacks a permission.
func refusesJoint(err error) bool {
	return redis.HasErrorPrefix(err, "CROSSSLOT") || redis.HasErrorPrefix(err, "NOPERM") || strings.HasPrefix(err.Error(), "ERR ")
}
