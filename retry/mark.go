package retry

import "time"

// Permanent marks err as ClassPermanent: trying again can't help. The mark is
// found through any wrapping, by %w and by errors.Join. Where there are several,
// the outermost decides, because the code that wrapped last knew most. The text
// stays err's. A nil err stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, class: ClassPermanent}
}

// After marks err as ClassRecoverable, to be tried again after d; a negative d
// counts as 0. The mark is found as Permanent's is. The code that schedules the
// retry may shorten d to a maximum of its own. The text stays err's. A nil err
// stays nil.
func After(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, class: ClassRecoverable, wait: max(d, 0), waits: true}
}

// Later marks err as ClassLater: not now, and not a failure, so it is to be tried again
// after d without being counted; a negative d counts as 0. It is for what is nobody's
// fault and passes by itself: a phone that is off, hours at which nobody is to be
// disturbed. The mark is found as Permanent's is. The code that schedules the next try
// may bound d: nothing else ends what is never counted. The text stays err's. A nil err
// stays nil.
func Later(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, class: ClassLater, wait: max(d, 0), waits: true}
}

// mark is what Permanent, After and Later add to an error.
type mark struct {
	err   error
	class Class
	wait  time.Duration
	waits bool
}

func (m *mark) Error() string { return m.err.Error() }

func (m *mark) Unwrap() error { return m.err }

// RetryDelay is what DelayOf looks for.
func (m *mark) RetryDelay() (time.Duration, bool) { return m.wait, m.waits }

// DelayOf returns the wait that err asks for and true, or false if it asks for
// none. An error asks by After or Later, by an HTTPError's Retry-After, or by a method of
// its own that returns true:
//
//	RetryDelay() (time.Duration, bool)
//
// DelayOf looks through all wrapping. The outermost error that asks decides, and of
// joined errors the first. The wait is never negative. Whether err is worth a retry
// at all is for Classifier to say.
func DelayOf(err error) (time.Duration, bool) {
	for err != nil {
		// errors.As would stop at the first error that has the method, even if that
		// returns false.
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
