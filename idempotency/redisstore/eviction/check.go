// Package eviction asks Redis whether it may evict keys. A store whose keys are
// promises asks before it relies on them: with the wrong maxmemory-policy they
// vanish silently when memory gets short.
//
// Check asks every master, because each has a policy of its own, by CONFIG GET or,
// where that is forbidden as on managed servers, by INFO. Which policies suit is
// the store's to say.
//
// A policy that does not suit is an *Error. So is one that the server won't tell,
// because what is not known can't be relied on. A server that can't be asked at
// all, because it is away or refuses the password, has no bad policy: its own
// error is returned as it is.
package eviction

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Error says that a master may evict keys, or will not tell.
type Error struct {
	// Node is the master's address; empty when the client does not tell.
	Node string
	// Policy is its maxmemory-policy; empty when it could not be learned.
	Policy string
	// Err is why it could not be learned.
	Err error
}

func (e *Error) Error() string {
	node := "Redis"
	if e.Node != "" {
		node += " at " + e.Node
	}
	if e.Policy == "" {
		return fmt.Sprintf("%s does not tell its maxmemory-policy: %v", node, e.Err)
	}
	return fmt.Sprintf("%s has maxmemory-policy %s", node, e.Policy)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Check asks every master for its maxmemory-policy. It returns nil when all of
// them have one that suits, and otherwise one master's fault: an *Error, or what
// kept Check from asking. suits may be called by several goroutines at once.
func Check(ctx context.Context, client redis.UniversalClient, suits func(policy string) bool) error {
	return EachMaster(ctx, client, func(ctx context.Context, master redis.Cmdable, node string) error {
		policy, err := policyOf(ctx, master, node)
		if err == nil && !suits(policy) {
			return &Error{Node: node, Policy: policy}
		}
		return err
	})
}

// policyOf asks CONFIG and, where that is answered with an error, INFO. It returns
// an *Error when the master won't tell.
func policyOf(ctx context.Context, master redis.Cmdable, node string) (string, error) {
	settings, err := master.ConfigGet(ctx, "maxmemory-policy").Result()
	if policy := settings["maxmemory-policy"]; err == nil && policy != "" {
		return policy, nil
	}
	if err != nil && !isReply(err) {
		return "", err
	}
	info, infoErr := master.Info(ctx, "memory").Result()
	if infoErr != nil && !refused(infoErr) {
		return "", infoErr
	}
	for line := range strings.Lines(info) {
		if policy, found := strings.CutPrefix(line, "maxmemory_policy:"); found {
			return strings.TrimSpace(policy), nil
		}
	}
	if infoErr == nil {
		infoErr = errNoPolicy
	}
	return "", &Error{Node: node, Err: errors.Join(err, infoErr)}
}

// errNoPolicy is met where something else than Redis speaks Redis's protocol.
var errNoPolicy = errors.New("INFO memory has no maxmemory_policy")

// isReply tells what a server said from what kept it from being asked. Servers
// refuse CONFIG in more words than can be known, so any reply is a reason to ask
// INFO.
func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// refused says whether a server forbids the command or does not have it, maybe
// under another name. Any other reply, such as LOADING or WRONGPASS, says nothing
// of the command.
func refused(err error) bool {
	return redis.IsPermissionError(err) || redis.HasErrorPrefix(err, "unknown command")
}
