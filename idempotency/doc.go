// Package idempotency makes work that may be asked for several times happen
// once within a time window. It works in two phases: claim the key before the
// effect, complete it after. A key that was only completed before the effect would
// suppress the retry of work that failed. A key that was only completed after it
// would let two copies run at the same time.
//
// [Guard.Do] runs a function in this way, and [Guard.Claim] does the same in steps.
//
// # What is promised
//
// A [Store] keeps one small state per key: nothing, leased by a token, waiting for
// attempt n, or done. Every change is one atomic command on one key. Every command
// may be repeated with the same token, because clients send a command again when
// its answer got lost. See [Store] for the whole table.
//
// While a claim is held, nobody else is given the same key. The lease is renewed
// for as long as the work runs. So it can be short, to end soon after a crash, and
// yet does not end under slow work. Once completed, the key stays done for the
// window.
//
// The promise has two limits. A crash between the effect and its completion leads
// to one more run, after the lease has ended. And a lease does not fence the
// outside world: a process that was stopped for longer than its lease may go on in
// the middle of its effect while another has begun the same. Its context is
// cancelled with the cause [ErrLost], but what was sent is sent. Where the provider
// takes an idempotency key of its own, pass it the key.
//
// The order is always: claim, effect, complete, and only then acknowledge the work
// to its source. [ErrBusy] means that the work runs elsewhere now: come back later,
// and never acknowledge because of it.
//
// The window has to be longer than the time over which copies of one message may
// arrive: longer than all retries together. Work that is replayed on purpose gets a
// [Key] of the next generation, which no earlier completion suppresses.
//
// # Retries
//
// A retry may be scheduled somewhere durable while the acknowledgment of the failed
// attempt gets lost. Then the failed attempt's copy comes again, and two chains of
// retries would run. [Claim.Schedule] keeps which attempt comes next; a copy with a
// lower attempt is stale and gets a [DuplicateError]. Schedule only after the retry
// is durable, because stale copies are thrown away.
//
// # Errors
//
// [Guard.Claim] returns [ErrBusy]; or a [*DuplicateError], which matches
// [ErrDuplicate], when the work is done or the attempt is stale; or an error that
// matches [ErrUnavailable] when the store could not be asked. Then do not run the
// work: that is to fail closed. A context's own errors are passed on.
// [ErrLost] says that a lease ended before its holder was done.
//
// # Stores
//
// [Memory] is a store for one process. Package redisstore shares one between
// processes. Package idempotencytest tests any other.
package idempotency
