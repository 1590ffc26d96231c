package redisstate

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// command is one call of the script.
type command struct {
	key    string
	op     string
	id     string
	by     string
	length time.Duration
	known  string
	token  string
	force  string
	reason string
	lost   bool // only if Redis has lost the record
}

func (c command) args() []any {
	lost := "0"
	if c.lost {
		lost = "1"
	}
	// Rounded up, so that 0 stays what it means.
	ms := (c.length + time.Millisecond - 1) / time.Millisecond
	return []any{c.op, c.id, c.by, int64(ms), c.known, c.token, c.force, c.reason, lost}
}

// answer is what came of one command.
type answer struct {
	record record
	err    error
}

// exchange sends commands as one pipeline and returns as many answers, or ctx's
// error. It returns no later than ctx ends, whatever the client does. done is
// called when the client has finished, which may be later.
func (f *Fleet) exchange(ctx context.Context, commands []command, done func()) ([]answer, error) {
	answered := make(chan []answer, 1)
	go func() {
		defer done()
		answered <- f.send(ctx, commands)
	}()
	select {
	case answers := <-answered:
		return answers, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// send sends commands by the script's digest, and those whose server does not have
// the script once more by its text.
func (f *Fleet) send(ctx context.Context, commands []command) []answer {
	answers := make([]answer, len(commands))
	all := make([]int, len(commands))
	for i := range all {
		all[i] = i
	}
	missed := f.pipeline(ctx, commands, all, answers, func(pipe redis.Pipeliner, c command) *redis.Cmd {
		return pipe.EvalSha(ctx, f.sha, []string{c.key}, c.args()...)
	})
	if len(missed) > 0 {
		f.pipeline(ctx, commands, missed, answers, func(pipe redis.Pipeliner, c command) *redis.Cmd {
			return pipe.Eval(ctx, source, []string{c.key}, c.args()...)
		})
	}
	return answers
}

// pipeline sends some of the commands and fills in their answers. It returns
// those that met a server without the script.
func (f *Fleet) pipeline(ctx context.Context, commands []command, some []int, answers []answer,
	queue func(redis.Pipeliner, command) *redis.Cmd,
) (missed []int) {
	pipe := f.client.Pipeline()
	results := make([]*redis.Cmd, len(some))
	for n, i := range some {
		results[n] = queue(pipe, commands[i])
	}
	_, _ = pipe.Exec(ctx) // every command has its error
	for n, i := range some {
		texts, err := results[n].StringSlice()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			missed = append(missed, i)
		}
		answers[i] = answer{err: err}
		if err == nil {
			answers[i].record, answers[i].err = decode(texts)
		}
	}
	return missed
}
