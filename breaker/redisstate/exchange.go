package redisstate

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/retry/lastfault"
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

// exchange sends commands as one pipeline and returns as many answers. It returns no
// later than bounded ends, which is ctx with Config.Timeout, whatever the client does.
// done is called when the client has finished, which may be later.
func (f *Fleet) exchange(ctx, bounded context.Context, commands []command, done func()) ([]answer, error) {
	answered := make(chan []answer, 1)
	go func() {
		defer done()
		answers := f.send(bounded, commands)
		for i := range answers {
			answers[i].err = lastfault.Reason(ctx, answers[i].err, errTimeout)
		}
		f.lastFault.Note(ctx, firstFault(answers))
		answered <- answers
	}()
	select {
	case answers := <-answered:
		return answers, nil
	case <-bounded.Done():
		return nil, f.timeIsUp(ctx, bounded)
	}
}

// timeIsUp is why there is no answer when bounded has ended.
func (f *Fleet) timeIsUp(ctx, bounded context.Context) error {
	reason := lastfault.Reason(ctx, bounded.Err(), errTimeout)
	f.lastFault.Note(ctx, reason)
	return reason
}

// firstFault is what has kept Redis from answering one of the commands, or nil.
func firstFault(answers []answer) error {
	for _, a := range answers {
		if a.err != nil && !lastfault.IsReply(a.err) && !errors.Is(a.err, errAnswer) {
			return a.err
		}
	}
	return nil
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
