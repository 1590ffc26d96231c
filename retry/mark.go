package retry

import "time"

// Permanent marks err as ClassPermanent: trying again can't help. The mark is
// found through any wrapping, by %w and by errors.Join; where there are
// several, the outermost decides, because who wrapped last knew most. The text
// stays err's. A nil err stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, class: ClassPermanent}
}

// After marks err as ClassRecoverable, to be tried again in d; a negative d is
// 0. It is found as Permanent's mark is. Whoever schedules the retry may
// shorten d to a maximum of their own. The text stays err's. A nil err stays
// nil.
func After(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, class: ClassRecoverable, wait: max(d, 0), waits: true}
}

// mark is what Permanent and After add to an error.
type mark struct {
	err   error
	class Class
	wait  time.Duration
	waits bool
}

func (m *mark) Error() string { return m.err.Error() }

func (m *mark) Unwrap() error { return m.err }

// RetryDelay makes it found by DelayOf.
func (m *mark) RetryDelay() (time.Duration, bool) { return m.wait, m.waits }

// DelayOf finds the wait that err asks for, by After, by an HTTPError's
// Retry-After, or by any error of the host's own with the method
//
//	RetryDelay() (time.Duration, bool)
//
// that answers true. It looks through all wrapping; the outermost that asks
// decides, and of joined errors the first. The wait is never negative. It says
// nothing about whether err is worth a retry: see Classifier.
func DelayOf(err error) (time.Duration, bool) {
	for err != nil {
		// errors.As would stop at the first that has the method, though it may answer
		// false.
		if asks, ok := err.(interface{ RetryDelay() (time.Duration, bool) }); ok {
			if wait, ok := asks.RetryDelay(); ok {
				return max(wait, 0), true
			}
		}
		switch wrapping := err.(type) { //nolint:errorlint // this is the unwrapping
		case interface{ Unwrap() error }:
			err = wrapping.Unwrap()
		case interface{ Unwrap() []error }:
			for _, each := range wrapping.Unwrap() {
				if wait, ok := DelayOf(each); ok {
					return wait, true
				}
			}
			return 0, false
		default:
			return 0, false
		}
	}
	return 0, false
}
