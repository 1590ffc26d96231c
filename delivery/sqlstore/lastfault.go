package sqlstore

import (
	"context"

	"github.com/esh3artech/barid/retry/lastfault"
)

// lastFault is why the database can't be used, as far as the last transactions have
// found out.
type lastFault struct{ lastfault.Fault }

// note keeps the outcome of a transaction, or of a try to begin one, neither of which
// a caller's context has ended. What is the matter with single rows says nothing to
// others.
func (l *lastFault) note(d *dialect, err error) {
	if err == nil {
		l.Note(context.Background(), nil)
		return
	}
	switch causeOf(err) {
	case connectionLost, noAnswer, readOnly, diskFull, denied:
		l.Note(context.Background(), err)
	case locked:
		if d.oneWriter {
			l.Note(context.Background(), err)
		}
	case unknown, transient, refusedValues:
	}
}

// withFault is err, the outcome of a call. If that is the error of the caller's ctx,
// it comes together with the fault, unless that is nil.
func withFault(ctx context.Context, doing string, err, fault error) error {
	if err != nil && fault != nil {
		fault = &DatabaseError{Doing: doing, Err: fault}
	}
	return lastfault.With(ctx, err, fault)
}
