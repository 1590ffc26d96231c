package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// maxStrikes is how many sessions a message may have been in that the broker
// ended with an exception. More, and it is likely to be the cause itself; it
// must not go on to break everybody's sessions.
const maxStrikes = 3

// shipment is one call of Send on its way. The calling goroutine does all of
// it, so that nobody else ever holds the caller's bytes. Each message is either
// still to be sent (next and what follows), in flight, or lost with a session
// and to be sent again.
type shipment struct {
	transport *Transport
	count     int
	// encode puts message i into an empty publishing and says where it goes.
	encode func(i int, p *amqp.Publishing) (Route, error)

	errs    []error // nil as long as nothing failed
	next    int
	again   []int
	flights []flight // of session, oldest first
	landed  int      // how many of flights are done
	session *session
	strikes int
	struck  *session  // the session of the last strike
	single  [1]flight // the flights of a single message
}

// flight is one message that was sent and awaits its confirm.
type flight struct {
	index   int
	confirm *amqp.DeferredConfirmation
	key     returnKey
}

// run sends everything and returns when all is decided, or when ctx ends.
func (s *shipment) run(ctx context.Context) []error {
	if err := ctx.Err(); err != nil {
		return s.giveUp(err)
	}
	p := s.transport.publishings.Get().(*amqp.Publishing)
	defer func() {
		clear(p.Headers)
		*p = amqp.Publishing{Headers: p.Headers}
		s.transport.publishings.Put(p)
	}()
	if s.flights = s.single[:0]; s.count > 1 {
		s.flights = make([]flight, 0, min(s.count, s.transport.config.Window))
	}
	for {
		var err error
		switch {
		case s.next == s.count && len(s.again) == 0:
			if s.landed == len(s.flights) {
				return s.errs
			}
			err = s.land(ctx)
		case s.session == nil:
			s.session, err = s.transport.usable(ctx)
		case s.session.over() || s.session.blocked.Load():
			if err = s.land(ctx); s.landed == len(s.flights) {
				s.session = nil
			}
		default:
			err = s.launch(ctx, p)
		}
		if err != nil {
			return s.giveUp(err)
		}
	}
}

// launch sends the next message, as soon as there is room for it. Waiting for
// room means to wait for messages of our own first, lest everybody hold a part
// of the window while waiting for the rest.
func (s *shipment) launch(ctx context.Context, p *amqp.Publishing) error {
	session := s.session
	if room := session.link.wire.full(); room != nil {
		if s.landed < len(s.flights) {
			return s.land(ctx)
		}
		select {
		case <-room:
		case <-session.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
	select {
	case session.slots <- struct{}{}:
	default:
		if s.landed < len(s.flights) {
			return s.land(ctx)
		}
		select {
		case session.slots <- struct{}{}:
		case <-session.gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	index, repeated := s.next, len(s.again) > 0
	if repeated {
		index = s.again[0]
	}
	clear(p.Headers)
	route, err := s.encode(index, p)
	if err == nil && s.transport.lacks(route.Exchange) {
		err = fmt.Errorf("%w: exchange %q does not exist", delivery.ErrUnroutable, route.Exchange)
	}
	if err != nil {
		s.fail(index, err)
		<-session.slots
	} else {
		confirm, ok := session.publish(route, p)
		if !ok {
			return nil // it did not go out: once more, with another session
		}
		s.flights = append(s.flights, flight{index: index, confirm: confirm, key: returnKey{id: p.MessageId, route: route}})
	}
	if repeated {
		s.again = s.again[1:]
	} else {
		s.next++
	}
	return nil
}

// land waits for the oldest message in flight.
func (s *shipment) land(ctx context.Context) error {
	if s.landed == len(s.flights) {
		return nil
	}
	confirm := s.flights[s.landed].confirm
	select {
	case <-confirm.Done():
	default:
		select {
		case <-confirm.Done():
		case <-s.session.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !confirm.Acked() && s.session.over() {
		select {
		case <-s.session.gone: // tells the cause
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.settle()
	return nil
}

// settle decides the oldest message in flight, whose confirm has come or whose
// session is gone.
func (s *shipment) settle() {
	session, f := s.session, &s.flights[s.landed]
	switch acked, over := f.confirm.Acked(), session.over(); {
	case acked:
		if session.wasReturned(f.key) {
			s.fail(f.index, fmt.Errorf("%w: exchange %q, routing key %q", delivery.ErrUnroutable, f.key.route.Exchange, f.key.route.Key))
		}
	case over:
		s.lost(f.index)
	default:
		s.fail(f.index, delivery.ErrRefused)
	}
	<-session.slots
	if s.landed++; s.landed == len(s.flights) {
		s.flights, s.landed = s.flights[:0], 0
	}
}

// lost is for a message whose session ended before its confirm came.
func (s *shipment) lost(index int) {
	<-s.session.gone
	cause := s.session.cause
	if s.struck != s.session && s.transport.blames(cause) {
		s.struck = s.session
		s.strikes++
	}
	if s.strikes >= maxStrikes {
		s.fail(index, fmt.Errorf("%w: the broker closed %d channels in a row: %w", delivery.ErrOutcomeUnknown, s.strikes, cause))
		return
	}
	s.again = append(s.again, index)
}

// blames says whether the broker ended a session because of what it was sent,
// and not because it went down or was told to. Two causes have a remedy: a
// missing exchange is found out before the next session, and a message over the
// broker's limit makes us know the limit.
func (t *Transport) blames(cause error) bool {
	var reply *amqp.Error
	if !errors.As(cause, &reply) || !reply.Server {
		return false
	}
	if limit, ok := sizeLimit(reply); ok && int64(limit) < t.maxBody.Load() {
		t.config.Logger.Warn("rabbitmq_body_limit", "bytes", limit)
		t.maxBody.Store(int64(limit))
		return false
	}
	switch reply.Code {
	case amqp.ConnectionForced, amqp.InternalError, amqp.NotFound:
		return false
	}
	return true
}

// sizeLimit reads the broker's limit from its reply: "message size 20 is larger
// than configured max size 10".
func sizeLimit(reply *amqp.Error) (int, bool) {
	_, text, found := strings.Cut(reply.Reason, "max size ")
	if !found || reply.Code != amqp.PreconditionFailed {
		return 0, false
	}
	limit, err := strconv.Atoi(strings.TrimSpace(text))
	return limit, err == nil && limit > 0
}

func (s *shipment) fail(index int, err error) {
	if s.errs == nil {
		s.errs = make([]error, s.count)
	}
	s.errs[index] = err
}

// giveUp decides the rest when there is no more time: what was never sent has
// the cause, what was is unknown. Such confirms may still come; they free their
// place in the window then.
func (s *shipment) giveUp(cause error) []error {
	unknown := delivery.ErrOutcomeUnknown
	switch {
	case errors.Is(cause, delivery.ErrClosed):
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrClosed)
	case s.transport.blocked():
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrBlocked)
		cause = fmt.Errorf("%w: %w", delivery.ErrBlocked, cause)
	}
	if s.session != nil {
		var orphans []flight
		for s.landed < len(s.flights) {
			f := s.flights[s.landed]
			select {
			case <-f.confirm.Done():
				if f.confirm.Acked() || !s.session.over() {
					s.settle()
					continue
				}
			default:
				orphans = append(orphans, f)
			}
			s.fail(f.index, unknown)
			s.landed++
		}
		s.session.adopt(orphans)
	}
	for _, index := range s.again {
		s.fail(index, unknown)
	}
	for ; s.next < s.count; s.next++ {
		s.fail(s.next, cause)
	}
	return s.errs
}

// adopt frees the places of messages that nobody waits for any longer, when
// their confirms come.
func (s *session) adopt(orphans []flight) {
	if len(orphans) == 0 {
		return
	}
	go func() {
		for _, f := range orphans {
			select {
			case <-f.confirm.Done():
				s.wasReturned(f.key)
				<-s.slots
			case <-s.gone:
				return
			}
		}
	}()
}
