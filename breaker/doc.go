// Package breaker is a circuit breaker: it keeps calls away from a dependency that
// mostly fails, and lets a few through from time to time to see whether it is back.
// It is built on sony/gobreaker, and adds outcomes without an age limit, probes that
// can't get lost, observers that may use the breaker, and overrides.
//
// # Semantics
//
// A Breaker is in one of three states.
//
// Closed: every call is allowed. The breaker remembers the last SampleSize
// outcomes. It opens as soon as it knows that many and at least the share Threshold
// of them are failures, in whatever order they came. Outcomes have no age limit, so
// calls of any length and rate count.
//
// Open: no call is allowed, for OpenFor. Then the breaker becomes half-open by
// itself, whether or not it is used.
//
// Half-open: Probes calls are allowed, no more. When all of them have succeeded,
// the breaker closes, with nothing remembered. When one of them fails, is abandoned,
// or hasn't reported within ProbeTimeout, it opens again.
//
// An allowed call has a Permit, by which its caller reports what came of it:
//
//	outcome    means                                        closed       half-open
//	Success    it worked                                    counts       success
//	Failure    the dependency failed                        counts       opens
//	Answered   it answered, and refused this very request   not counted  success
//	Abandoned  the caller gave up, nothing is known         not counted  opens
//
// A report that comes after the breaker has changed its state changes nothing, and
// neither does a second report. A Permit may stay without a report, for instance
// because its goroutine ended with runtime.Goexit. While closed that costs nothing;
// while half-open it counts as Abandoned after ProbeTimeout.
//
// Watch and Config.OnChange tell of changes. Observers run outside all locks, so
// they may use the breaker.
//
// A Set has a Breaker for each key, such as a host or a provider, and keeps those
// that were used last.
//
// # Overrides
//
// An operator may force the state: ForceOpen and ForceClosed hold for a time or
// until Release, whatever the outcomes are. What was forced open becomes half-open
// then, what was forced closed becomes closed.
//
// Other code, such as another instance or a health check, may know the dependency's
// state as well. It passes that on by Trip and Reset, which do what outcomes would
// have done, and by HoldProbes, which leaves probing to others. With these
// breaker/redisstate shares the state of a fleet. A force is stronger than any of
// them.
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
// All of it is local to the process, and costs Allow nothing.
//
// # Errors
//
// Allow refuses with an *OpenError, which matches ErrOpen. A Breaker with a faulty
// Config, a nil one and a zero one allow nothing: their Allow, Wait and Err return
// an error that matches ErrConfig and names every fault. When its
// context ends, Wait returns the context's error together with an *OpenError.
//
// Everything here is safe for concurrent use.
package breaker
