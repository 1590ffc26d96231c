package idempotency

import (
	"context"
	"fmt"
	"time"
)

// Store keeps the state of keys. A key is in one of four states:
//
//	absent      nothing is known, or what was known has expired
//	leased      an attempt with a token is running; expires with the lease
//	retry n     attempt n is scheduled: the fence; expires with its ttl
//	done        complete; expires with the window
//
// A state other than absent remembers the token that brought it about. Each
// method is one atomic step on one key, and answers like this ("own" means that
// the state remembers the same token, "another's" a different one):
//
//	             absent        leased, own   leased, another's  retry n, own       retry n, another's  done
//	Claim        -> leased     -> leased     Busy               Stale if attempt < n, else -> leased   Done
//	Renew        ErrLost       extended      ErrLost            ErrLost            ErrLost             ErrLost
//	Complete     -> done Late  -> done       ErrLost            -> done            ErrLost             ok
//	Schedule     ErrLost       -> retry      ErrLost            -> retry           ErrLost             ErrLost
//	Release      ok            -> absent     ErrLost            ErrLost            ErrLost             ErrLost
//
// What is not said to change stays as it is, its expiry included.
//
// Every step may be repeated with the same token, in case its answer was lost:
// Claim finds its own lease, Complete finds the key done, Schedule finds its own
// fence, and Release finds nothing. A repeated step that comes after another
// holder's next step is refused and changes nothing.
//
// Two cells need a reason. Release leaves a fence alone, even its own: when the
// answer to Schedule was lost, the retry is already durable, and without the fence
// the old copy would run beside it. And Complete succeeds whoever has completed the
// key, because the work is done either way.
//
// A step that ended with an error other than ErrLost may or may not have been taken.
// A Claim like that can leave a lease that nobody knows of. It ends by itself, or is
// taken over by a Claim with the same token.
//
// Keys are opaque, binary, and not empty. So are tokens; a token belongs to one
// holder at a time. Durations are positive, and stores may round them up to whole
// milliseconds. Arguments outside of these bounds lead to an error that matches
// ErrInvalid (see Validate). Other errors match ErrUnavailable, or that of ctx, which
// has ended then (see Unavailable).
//
// A Store may be able to do more: Ping, Check and Err, which consumers and guards look
// for. A wrapper that has an Unwrap() Store keeps these abilities, see AbilityOf.
//
// All methods may be called by any number of goroutines at once, and return by
// ctx's end. The suite idempotencytest.TestStore is this contract as tests.
type Store interface {
	// Claim asks for the key on behalf of an attempt (0 is the first run). The
	// answer tells whether it is leased to token now, for the time of lease.
	Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (Answer, error)
	// Renew lets the lease of token end after lease from now. ErrLost says that
	// token holds no lease.
	Renew(ctx context.Context, key, token string, lease time.Duration) error
	// Complete makes the key done for the time of window. It returns Late when the
	// lease had ended and nobody had taken the key: the key is done, but another
	// holder could have run meanwhile. ErrLost says that another holds the key.
	Complete(ctx context.Context, key, token string, window time.Duration) (Completion, error)
	// Schedule puts a fence in place of the lease: attempt comes next, and lower ones
	// are stale. The fence stays for the time of ttl, which has to be longer than the
	// delay of the scheduled attempt. ErrLost says that token holds no lease.
	Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error
	// Release makes the key absent, as if it had never been claimed. ErrLost says
	// that the key is leased to another, scheduled, or done.
	Release(ctx context.Context, key, token string) error
}

// State is what Claim found.
type State int

// The answers to a Claim. The zero State is none of them, so that an answer
// that was never given is not mistaken for a claim.
const (
	// Claimed: leased to the token that asked.
	Claimed State = iota + 1
	// Busy: leased to another token.
	Busy
	// Done: complete, within its window.
	Done
	// Stale: a later attempt is scheduled already.
	Stale
)

// String is the lower-case name.
func (s State) String() string {
	switch s {
	case Claimed:
		return "claimed"
	case Busy:
		return "busy"
	case Done:
		return "done"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Answer is what Claim found, and the token that brought it about.
type Answer struct {
	// State is what Claim found.
	State State
	// Holder is the token that holds the lease, completed the key, or scheduled
	// the later attempt. It is the caller's own when State is Claimed, and empty
	// where a store can't tell.
	Holder string
}

// Completion is how Complete went.
type Completion int

// The ways in which Complete succeeds.
const (
	// InTime: the lease was held, or the key was done already.
	InTime Completion = iota
	// Late: the lease had ended, but nobody had taken the key.
	Late
)

// String is the lower-case name.
func (c Completion) String() string {
	switch c {
	case InTime:
		return "in time"
	case Late:
		return "late"
	}
	return fmt.Sprintf("Completion(%d)", int(c))
}

// Validate checks the arguments of a Store's methods, for authors of stores: key and
// token are not empty, the duration is positive. Release, which has no duration,
// passes any positive one. The error matches ErrInvalid.
func Validate(key, token string, duration time.Duration) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: key is empty", ErrInvalid)
	case token == "":
		return fmt.Errorf("%w: token is empty", ErrInvalid)
	case duration <= 0:
		return fmt.Errorf("%w: duration is %v, want more than 0", ErrInvalid, duration)
	}
	return nil
}
