// Package retry decides whether something that failed is tried again, and
// when. It runs nothing itself: it answers questions, so that whoever asks may
// keep a retry in a database and ask again in another process.
//
// # Semantics
//
// A Policy answers two questions about retry number n, 0 being the first retry
// and not the first run: CanRetry(n), whether it is allowed, and Delay(n), how
// long to wait before it. Both depend on n alone; there is no object that has
// to live between two attempts. Exponential doubles the wait each time and may
// add jitter; None never retries.
//
// A Classifier says what kind of failure an error is:
//
//   - ClassTransient is gone in a moment: try again at once.
//   - ClassRecoverable takes a while: try again after the Policy's delay. This
//     is what an error is that nobody knows.
//   - ClassPermanent will be the same next time: don't try again.
//
// The first rule that knows the error decides: the host's own rules, then the
// marks that Permanent and After leave on an error, then the table at
// Classifier. The host's rules come before the marks because they are the only
// place where the host can overrule what a package that it imports has marked.
//
// An error may also ask for a wait of its own, by After or by an HTTP
// Retry-After header; DelayOf finds it. Whoever schedules uses it instead of
// the Policy's, bounded by a maximum of their own.
//
// # Errors
//
// A faulty Exponential answers safely, with defaults in place of what is
// invalid, and its Validate returns an error matching ErrConfig that names
// every field. Permanent and After keep the text of the error that they mark,
// and errors.Is and errors.As see through them.
//
// # Usage
//
//	policy := retry.Exponential{Base: time.Second, Jitter: retry.JitterFull}
//	var classifier retry.Classifier
//
//	err := deliver()
//	if err != nil && classifier.Classify(err) != retry.ClassPermanent && policy.CanRetry(n) {
//		wait := policy.Delay(n)
//		if asked, ok := retry.DelayOf(err); ok {
//			wait = min(asked, time.Hour)
//		}
//		schedule(wait)
//	}
//
// Everything here is safe for concurrent use.
package retry
