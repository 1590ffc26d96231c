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

// maxExceptions bounds how many connections that the broker ended with an exception
// a message may have been in. After so many it is likely to be the cause itself,
// and must not end the connections of others again and again.
const maxExceptions = 3

// send is one call of Send under way. The goroutine that called does all of it,
// so that nothing holds the caller's bytes after Send has returned. Each message
// is either still to be sent (next and those after it), sent and unconfirmed, or
// to be sent again.
//
// When the broker ends a channel because of a message, any of those on it may have
// been the one. Each is sent again over a channel that it has for itself: the one
// that ends that channel as well fails with the broker's words.
type send struct {
	transport *Transport
	count     int
	// encode puts message i into an empty publishing and says where it goes.
	encode func(i int, p *amqp.Publishing) (Route, error)

	errs          []error // nil as long as nothing failed
	next          int
	resend        []upcoming
	inFlight      []unconfirmed // over channel, oldest first
	resolved      int           // how many of inFlight are no longer
	channel       *publishChannel
	alone         bool // whether the next message is to have a channel for itself
	exceptions    int
	exceptionFrom *publishChannel // the channel of the last exception
	single        [1]unconfirmed  // backs inFlight when there is one message
}

// upcoming is a message that is to be sent again.
type upcoming struct {
	index int
	alone bool // over a channel for itself
	// mended says that the topology has been declared again on its behalf, or that
	// this is to be waited for until the mender's round.
	mended bool
	round  int64
	fault  error // what it fails with if that takes too long; nil: its outcome is unknown
}

// unconfirmed is a message that was sent and awaits its confirm.
type unconfirmed struct {
	upcoming
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
			s.channel, err = s.transport.publishConns.await(ctx, &s.transport.closing, s.alone)
		case s.channel.ended() || s.channel.conn.blocked.Load() || s.channel.alone != s.alone:
			if err = s.awaitOldest(ctx); s.resolved == len(s.inFlight) {
				s.channel = nil
			}
		case len(s.resend) > 0 && s.resend[0].round > s.transport.mender.rounds.Load():
			if s.resolved < len(s.inFlight) {
				err = s.awaitOldest(ctx)
			} else {
				err = s.transport.mender.await(ctx, s.transport.life, s.resend[0].round)
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
	message, again := upcoming{index: s.next}, len(s.resend) > 0
	if again {
		message = s.resend[0]
	}
	clear(p.Headers)
	route, err := s.encode(message.index, p)
	if err == nil && s.transport.topology.lacks(route.Exchange) {
		err = fmt.Errorf("%w: exchange %q does not exist", delivery.ErrUnroutable, route.Exchange)
	}
	refusal, refused := s.transport.refusals.of(route)
	if err == nil && refused && refusal.young() {
		err = refusal.err
	}
	s.alone = message.alone || refused
	switch {
	case err != nil:
		s.fail(message.index, err)
		<-s.channel.window
	case s.alone != s.channel.alone:
		<-s.channel.window
		return nil // it is the next over another channel
	default:
		message.round = s.transport.mender.rounds.Load()
		confirm, ok := s.channel.publish(route, p)
		if !ok {
			return nil // it has not gone out, and is the next over another channel
		}
		s.inFlight = append(s.inFlight, unconfirmed{upcoming: message, confirm: confirm, key: returnKey{id: p.MessageId, route: route}})
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
		s.transport.refusals.remove(m.key.route)
		if channel.wasReturned(m.key) {
			s.mendOrFail(m)
		}
	case ended:
		s.resendOrFail(m)
	default:
		s.fail(m.index, delivery.ErrRefused)
	}
	<-channel.window
	if s.resolved++; s.resolved == len(s.inFlight) {
		s.inFlight, s.resolved = s.inFlight[:0], 0
	}
}

// mendOrFail is for a message that the broker has returned. Somebody may have deleted
// its queue or binding, so it is sent once more when the topology has been declared
// again.
func (s *send) mendOrFail(m *unconfirmed) {
	mender := &s.transport.mender
	fault := fmt.Errorf("%w: exchange %q, routing key %q", delivery.ErrUnroutable, m.key.route.Exchange, m.key.route.Key)
	switch {
	case m.mended:
		mender.failed()
	case s.transport.config.Passive:
	case m.round < mender.rounds.Load() || !mender.hopeless():
		s.channel.owner.lacks(m.round)
		s.resend = append(s.resend, upcoming{index: m.index, alone: m.alone, mended: true, round: m.round + 1, fault: fault})
		return
	}
	s.fail(m.index, fault)
}

// resendOrFail is for a message whose channel ended before its confirm came. It
// is sent again, unless it is what ends the channels, or is likely to.
func (s *send) resendOrFail(m *unconfirmed) {
	<-s.channel.gone
	cause := s.channel.cause
	again := upcoming{index: m.index, alone: m.alone, mended: m.mended}
	switch exception := s.channel.exception; {
	case exception == exceptionMissing && !m.mended:
		again.mended, again.round = true, m.round+1 // comes before the next channel
	case exception == exceptionMissing, exception == exceptionMessage:
		if s.channel.alone {
			s.fail(m.index, s.transport.refusals.add(m.key.route, cause))
			return
		}
		again.alone = true
	case exception == exceptionNone && s.transport.causedBySender(cause):
		if s.exceptionFrom != s.channel {
			s.exceptionFrom = s.channel
			s.exceptions++
		}
		if s.exceptions >= maxExceptions {
			s.fail(m.index, fmt.Errorf("%w: the broker closed %d connections in a row: %w", delivery.ErrOutcomeUnknown, s.exceptions, cause))
			return
		}
	}
	s.resend = append(s.resend, again)
}

// causedBySender says whether the broker ended a channel or connection because of
// what was sent.
func (t *Transport) causedBySender(cause error) bool {
	var reply *amqp.Error
	if !errors.As(cause, &reply) || !reply.Server {
		return false
	}
	switch reply.Code {
	case amqp.ConnectionForced, amqp.InternalError, amqp.NotFound:
		return false
	}
	return true
}

// learnFrame has the headers of messages fit into the frames of every connection so
// far: another node may take less.
func (t *Transport) learnFrame(conn *connection) {
	frame := conn.amqp.Config.FrameSize
	for frame != 0 {
		known := t.headers.Load()
		if limit := int64(frame - frameBytes); limit >= known || t.headers.CompareAndSwap(known, limit) {
			return
		}
	}
}

// learnLimit says whether a message was over the broker's limit, which is known from
// then on.
func (t *Transport) learnLimit(cause error) bool {
	var reply *amqp.Error
	if !errors.As(cause, &reply) || !reply.Server {
		return false
	}
	limit, ok := sizeLimit(reply)
	if !ok || int64(limit) >= t.maxBody.Load() {
		return false
	}
	t.config.Logger.Warn("body limit learned", "bytes", limit)
	t.maxBody.Store(int64(limit))
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

// publishFault is the last known reason why nothing can be published, or nil.
func (t *Transport) publishFault() error {
	if fault := t.connections.dialer.fault.Load(); fault != nil {
		return fault
	}
	if fault := t.publishConns.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// giveUp ends the call before all is known. What was never sent fails with the
// cause. What was sent is unknown; its confirm may still come, and then frees its
// place in the window.
func (s *send) giveUp(cause error) []error {
	unknown := delivery.ErrOutcomeUnknown
	switch fault := s.transport.publishFault(); {
	case errors.Is(cause, delivery.ErrClosed):
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrClosed)
	case s.transport.publishConns.blocked():
		unknown = fmt.Errorf("%w: %w", unknown, delivery.ErrBlocked)
		cause = fmt.Errorf("%w: %w", delivery.ErrBlocked, cause)
	case fault != nil && (s.channel == nil || s.channel.ended()):
		unknown = fmt.Errorf("%w: %w", unknown, fault)
		cause = fmt.Errorf("%w: %w", cause, fault)
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
	for _, message := range s.resend {
		if message.fault == nil {
			message.fault = unknown
		}
		s.fail(message.index, message.fault)
	}
	for ; s.next < s.count; s.next++ {
		s.fail(s.next, cause)
	}
	return s.errs
}
