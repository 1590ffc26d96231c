// Package retry decides whether something that failed is tried again, and
// when. It runs nothing itself: it answers questions, so that a caller may keep a
// retry in a database and ask again in another process.
//
// # Semantics
//
// A Policy answers two questions about retry number n, 0 being the first retry
// and not the first run: CanRetry(n), whether it is allowed, and Delay(n), how
// long to wait before it. Both depend on n alone, so no object has to live between
// two attempts. Exponential doubles the wait each time and may shorten it by
// jitter; None never retries. Wait waits.
//
// A Classifier says what kind of failure an error is:
//
//   - ClassTransient is gone in a moment: try again at once.
//   - ClassRecoverable takes a while: try again after the Policy's delay. An error
//     that no rule knows has this class.
//   - ClassPermanent will be the same next time: don't try again.
//   - ClassLater is no failure: not now, try again after a wait and don't count it.
//
// The first rule that knows the error decides: the host's own rules, then the
// marks that Permanent, After and Later leave on an error, then the rest of the table at
// Classifier. The host's rules come before the marks because they are the only
// place where the host can overrule the marks of a package that it imports.
//
// An error may also ask for a wait of its own, by After, by Later or by an HTTP
// Retry-After header; DelayOf finds it. The caller uses it instead of the Policy's,
// bounded by a maximum of its own.
//
// # Errors
//
// A faulty Exponential uses defaults in place of what is invalid, and its Validate
// returns an error that matches ErrConfig and names every field. Permanent, After and
// Later keep the text of the error that they mark, and errors.Is and errors.As see
// through them.
//
// Everything here is safe for concurrent use.
package retry
