// Package idempotency makes work that may be asked for several times happen
// once within a time window. It works in two phases: claim the key before the
// effect, mark it done after. A key that is only marked up front would swallow
// the retry of work that failed; one that is only marked afterwards would let
// two copies run side by side.
//
// # What is promised
//
// A [Store] keeps one small state per key: nothing, leased by a token, waiting
// for attempt n, or done. Every change is one atomic command on one key, and
// every command may be repeated with the same token, because clients send a
// command again when its answer got lost. See [Store] for the whole table.
//
// While a claim is held nobody else is given the same key. The lease is renewed
// as long as the work runs, so that it can be short enough to get over a crash
// soon and yet never end under slow work. Once complete, the key stays done for
// the window.
//
// The promise has two limits. A crash between the effect and its mark leads to
// one more run after the lease has ended. And a lease does not fence the outside
// world: a process that was stopped for longer than its lease may wake up in the
// middle of its effect while another has begun the same. Its context is
// cancelled with the cause [ErrLost], but what was sent is sent. Whoever can
// should pass the key on to the provider as the provider's own idempotency key.
//
// The order is always: claim, effect, complete, and only then acknowledge to
// where the work came from. [ErrBusy] means that someone else is at it now: come
// back later, never acknowledge on it.
//
// The window has to be longer than the time over which copies of one message may
// arrive: longer than the whole retry horizon. Work that is replayed on purpose
// gets a [Key] of the next generation, which no earlier mark can swallow.
//
// # Retries
//
// A retry that is scheduled somewhere durable leaves a copy behind when the
// acknowledgment of the failed attempt gets lost. Then two chains of retries
// would run. [Claim.Schedule] records which attempt comes next; a copy with a
// lower attempt is stale and gets a [DuplicateError]. Schedule only after the
// retry is durable: what is stale is thrown away.
//
// # Errors
//
// [Guard.Claim] returns [ErrBusy]; or a [*DuplicateError], which matches
// [ErrDuplicate], when the work is done or the attempt is stale; or an error
// that matches [ErrUnavailable] when the store could not be asked: fail closed,
// do not run the work. A context's own errors are passed on bare. [ErrLost]
// says that a lease ended before its holder did.
//
// # Usage
//
// A host that has nothing but a function to run:
//
//	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
//	err := guard.Do(ctx, idempotency.FromID("invoices", invoice.ID, 0), func(ctx context.Context) error {
//		return send(ctx, invoice)
//	})
//	if errors.Is(err, idempotency.ErrDuplicate) {
//		// it was sent before
//	}
//
// [Guard.Claim] gives the same in steps. [Memory] is a store for one process;
// package redisstore shares one between processes. Package idempotencytest
// tests any other.
package idempotency
