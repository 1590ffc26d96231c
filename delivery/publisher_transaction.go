package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"
)

var errPublishIn = fmt.Errorf("%w: PublishIn wants a Saver and PublisherConfig.Store, "+
	"and a RetryWorker that sends what is saved: not a Store of RecordsOnly, which Settings make with Features.RetryWorker off", ErrUnsupported)

// PublishIn is Publish within a transaction of the host: messages are saved by
// saver, and are part of whatever it belongs to, which must end up in
// PublisherConfig.Store.
//
// Call committed when the transaction has been committed, to have the messages
// sent at once. If the process dies before that, or committed is not called, or
// only after Close, a RetryWorker sends them after PendingGrace. Each is looked up in
// the Store before it is sent: after a rollback, also one to a savepoint, nothing is
// left of a message, and nothing is sent. A saver that is a CommittedSaver
// is told by committed, too. Committed is never nil; it may be called from any
// goroutine, and a second call changes nothing.
//
// The outcomes are Publish's. After an error roll back: which of the messages are
// in the transaction is not known.
//
// PublishIn needs a Store, and a RetryWorker, or is ErrUnsupported.
// PublisherConfig.Idempotency is not asked: a repeated ID is saved once. Metrics
// count what is saved, whether or not it is committed.
func (p *Publisher) PublishIn(ctx context.Context, saver Saver, messages ...Message) (committed func(), err error) {
	if err := p.begin(ctx); err != nil {
		return func() {}, err
	}
	defer p.calls.end()
	if p.outbox == nil || saver == nil {
		return func() {}, errPublishIn
	}
	begin := time.Now()
	batch := envelopesOf(messages, begin)
	errs := p.validator.accept(batch)
	var saved []Envelope
	if errs == nil && len(batch) > 0 {
		errs, saved, _ = p.outbox.save(ctx, saver, batch, begin)
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return sync.OnceFunc(func() {
		p.outbox.committed(saved, begin)
		if watched, ok := saver.(CommittedSaver); ok {
			watched.Committed()
		}
	}), publishError(batch, errs)
}
