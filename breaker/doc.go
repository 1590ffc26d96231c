// Package breaker keeps calls away from a dependency that mostly fails, and
// lets a few through from time to time to see whether it is back. It is
// sony/gobreaker with its sharp edges covered.
//
// # Semantics
//
// A Breaker is in one of three states.
//
// Closed: every call is allowed. The last SampleSize outcomes are remembered,
// and as soon as there are that many and at least the share Threshold of them
// are failures, in whatever order they came, the breaker opens. The outcomes
// have no age limit, so that calls of any length and rate count.
//
// Open: no call is allowed, for OpenFor. Then the breaker becomes half-open by
// itself, whether or not anybody asks.
//
// Half-open: Probes calls are allowed, no more. When all of them have
// succeeded the breaker closes, with nothing remembered. When one of them
// fails, is abandoned, or hasn't reported within ProbeTimeout, it opens again.
//
// Who is allowed holds a Permit and reports what came of the call:
//
//	outcome    means                                        closed       half-open
//	Success    it worked                                    counts       success
//	Failure    the dependency failed                        counts       opens
//	Answered   it answered, and refused this very request   not counted  success
//	Abandoned  the caller gave up, nothing is known         not counted  opens
//
// What reports late, after the breaker has changed its state, changes nothing,
// and neither does a second report. A Permit that is never reported, because
// its goroutine ended with runtime.Goexit for instance, costs nothing while
// closed, and while half-open it is taken for Abandoned after ProbeTimeout.
//
// Watch and Config.OnChange tell of changes, outside all locks, so an observer
// may use the breaker.
//
// A Set has a Breaker for each key, such as a host or a provider, and keeps
// those used last.
//
// # Overrides
//
// An operator may force the state: ForceOpen and ForceClosed hold for a time or
// until Release, whatever the calls come to. What was forced open becomes
// half-open then, what was forced closed becomes closed.
//
// What another party has found out (another instance, a health check) is passed
// on by Trip and Reset, which do what outcomes would have done, and by
// HoldProbes, which leaves probing to somebody else. This is what
// breaker/redisstate shares the state of a fleet with. A force is stronger than
// either.
//
//	event           closed     open            half-open  forced open  forced closed
//	outcomes        may open   -               decide     -            -
//	time is up      -          half-open       -          half-open    closed, unforced
//	Trip(d)         open       open for d      open       -            -
//	Reset           -          closed          closed     -            -
//	ForceOpen(d)    open       open, forced    open       for d        open
//	ForceClosed(d)  forced     closed          closed     closed       for d
//	Release         -          -               -          half-open    closed, unforced
//
// All of it is local, and costs Allow nothing.
//
// # Errors
//
// Allow's refusals are *OpenError and match ErrOpen. A Breaker with a faulty
// Config, a nil and a zero one allow nothing: Allow, Wait and Err return an
// error matching ErrConfig that names every fault. Wait returns a context's
// own error bare.
//
// # Usage
//
//	payments := breaker.New(breaker.Config{Name: "payments"})
//
//	permit, err := payments.Allow()
//	if err != nil {
//		return err // errors.Is(err, breaker.ErrOpen)
//	}
//	outcome := breaker.Abandoned
//	defer func() { permit.Done(outcome) }() // on panic and Goexit as well
//	if err = pay(); err != nil {
//		outcome = breaker.Failure
//		return err
//	}
//	outcome = breaker.Success
//
// Everything here is safe for concurrent use.
package breaker
