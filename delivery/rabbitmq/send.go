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

// maxExceptions bounds how many channels that the broker ended with an exception
// a message may have been in. After so many it is likely to be the cause itself,
// and must not end the channels of others again and again.
const maxExceptions = 3

// send is one call of Send under way. The goroutine that called does all of it,
// so that nothing holds the caller's bytes after Send has returned. Each message
// is either still to be sent (next and those after it), sent and unconfirmed, or
// unconfirmed at the end of its channel and to be sent again.
type send struct {
	transport *Transport
	count     int
	// encode puts message i into an empty publishing and says where it goes.
	encode func(i int, p *amqp.Publishing) (Route, error)

	errs          []error // nil as long as nothing failed
	next          int
	resend        []int
	inFlight      []unconfirmed // over channel, oldest first
	resolved      int           // how many of inFlight are no longer
	channel       *publishChannel
	exceptions    int
	exceptionFrom *publishChannel // the channel of the last exception
	single        [1]unconfirmed  // backs inFlight when there is one message
}

// unconfirmed is a message that was sent and awaits its confirm.
type unconfirmed struct {
	index   int
	confirm *amqp.DeferredConfirmation
	key     returnKey
}

// run sends all messages. It returns when the outcome of each is known, or when
// ctx ends.
func (s *send) run(ctx context.Context) []error {
	if err := ctx.Err(); err != nil {
		return s.giveUp(err)
	}
	p := s.transport.publishings.Get().(*amqp.Publishing)
	defer func() {
		clear(p.Headers)
		*p = amqp.Publishing{Headers: p.Headers}
		s.transport.publishings.Put(p)
	}()
	if s.inFlight = s.single[:0]; s.count > 1 {
		s.inFlight = make([]unconfirmed, 0, min(s.count, s.transport.config.Window))
	}
	for {
		var err error
		switch {
		case s.next == s.count && len(s.resend) == 0:
			if s.resolved == len(s.inFlight) {
				return s.errs
			}
			err = s.awaitOldest(ctx)
		case s.channel == nil:
			s.channel, err = s.transport.publishConns.await(ctx, &s.transport.closing)
		case s.channel.ended() || s.channel.blocked.Load():
			if err = s.awaitOldest(ctx); s.resolved == len(s.inFlight) {
				s.channel = nil
			}
		default:
			err = s.sendNext(ctx, p)
		}
		if err != nil {
			return s.giveUp(err)
		}
	}
}

// sendNext sends the next message if there is room for it, and otherwise waits,
// for the caller to try again.
func (s *send) sendNext(ctx context.Context, p *amqp.Publishing) error {
	if entered, err := s.enterWindow(ctx); !entered || err != nil {
		return err
	}
	index, again := s.next, len(s.resend) > 0
	if again {
		index = s.resend[0]
	}
	clear(p.Headers)
	route, err := s.encode(index, p)
	if err == nil && s.transport.topology.lacks(route.Exchange) {
		err = fmt.Errorf("%w: exchange %q does not exist", delivery.ErrUnroutable, route.Exchange)
	}
	if err != nil {
		s.fail(index, err)
		<-s.channel.window
	} else {
		confirm, ok := s.channel.publish(route, p)
		if !ok {
			return nil // it has not gone out, and is the next over another channel
		}
		s.inFlight = append(s.inFlight, unconfirmed{index: index, confirm: confirm, key: returnKey{id: p.MessageId, route: route}})
	}
	if again {
		s.resend = s.resend[1:]
	} else {
		s.next++
	}
	return nil
}

// enterWindow takes a place in the channel's window. While there is none, or the
// connection's buffer is full, it waits and returns false, for the caller to look
// at the channel again.
//
// A caller that has messages in flight waits for the oldest of them instead: if
// everybody held a part of the window while waiting for more of it, nobody would
// ever go on.
func (s *send) enterWindow(ctx context.Context) (entered bool, err error) {
	channel := s.channel
	if room := channel.conn.tcp.full(); room != nil {
		if s.resolved < len(s.inFlight) {
			return false, s.awaitOldest(ctx)
		}
		select {
		case <-room:
		case <-channel.gone:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		return false, nil
	}
	select {
	case channel.window <- struct{}{}:
		return true, nil
	default:
	}
	if s.resolved < len(s.inFlight) {
		return false, s.awaitOldest(ctx)
	}
	select {
	case channel.window <- struct{}{}:
		return true, nil
	case <-channel.gone:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// awaitOldest waits for the confirm of the oldest message in flight, if there is
// one, and resolves it.
func (s *send) awaitOldest(ctx context.Context) error {
	if s.resolved == len(s.inFlight) {
		return nil
	}
	confirm := s.inFlight[s.resolved].confirm
	select {
	case <-confirm.Done():
	default:
		select {
		case <-confirm.Done():
		case <-s.channel.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !confirm.Acked() && s.channel.ended() {
		select {
		case <-s.channel.gone: // then the cause is known
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.resolveOldest()
	return nil
}

// resolveOldest decides what became of the oldest message in flight, whose
// confirm has come or whose channel is gone.
func (s *send) resolveOldest() {
	channel, m := s.channel, &s.inFlight[s.resolved]
	switch acked, ended := m.confirm.Acked(), channel.ended(); {
	case acked:
		if channel.wasReturned(m.key) {
			s.fail(m.index, fmt.Errorf("%w: exchange %q, routing key %q", delivery.ErrUnroutable, m.key.route.Exchange, m.key.route.Key))
		}
	case ended:
		s.resendOrFail(m.index)
	default:
		s.fail(m.index, delivery.ErrRefused)
	}
	<-channel.window
	if s.resolved++; s.resolved == len(s.inFlight) {
		s.inFlight, s.resolved = s.inFlight[:0], 0
	}
}

// resendOrFail is for a message whose channel ended before its confirm came. It
// is sent again, unless it is likely to be what ends the channels.
func (s *send) resendOrFail(index int) {
	<-s.channel.gone
	cause := s.channel.cause
	if s.exceptionFrom != s.channel && s.transport.causedBySender(cause) {
		s.exceptionFrom = s.channel
		s.exceptions++
	}
	if s.exceptions >= maxExceptions {
		s.fail(index, fmt.Errorf("%w: the broker closed %d channels in a row: %w", delivery.ErrOutcomeUnknown, s.exceptions, cause))
		return
	}
	s.resend = append(s.resend, index)
}

// causedBySender says whether the broker ended a channel because of what was
// sent over it, and not because the broker went down or was told to. Two causes
// do not count because they will not come again: a missing exchange is found out
// before the next channel opens, and a message over the broker's limit makes the
// limit known here.
func (t *Transport) causedBySender(cause error) bool {
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

func (s *send) fail(index int, err error) {
	if s.errs == nil {
		s.errs = make([]error, s.count)
	}
	s.errs[index] = err
}

// giveUp ends the call before all is known. What was never sent fails with the
// cause. What was sent is unknown; its confirm may still come, and then frees its
// place in the window.
func (s *send) giveUp(cause error) []error {
	unknown := delivery.ErrOutcomeUnknown
	switch {
	case errors.Is(cause, delivery.ErrClosed):
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrClosed)
	case s.transport.publishConns.blocked():
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrBlocked)
		cause = fmt.Errorf("%w: %w", delivery.ErrBlocked, cause)
	}
	if s.channel != nil {
		var abandoned []unconfirmed
		for s.resolved < len(s.inFlight) {
			m := s.inFlight[s.resolved]
			select {
			case <-m.confirm.Done():
				if m.confirm.Acked() || !s.channel.ended() {
					s.resolveOldest()
					continue
				}
			default:
				abandoned = append(abandoned, m)
			}
			s.fail(m.index, unknown)
			s.resolved++
		}
		s.channel.abandon(abandoned)
	}
	for _, index := range s.resend {
		s.fail(index, unknown)
	}
	for ; s.next < s.count; s.next++ {
		s.fail(s.next, cause)
	}
	return s.errs
}
