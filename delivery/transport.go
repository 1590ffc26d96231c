package delivery

import (
	"context"
	"time"

	"github.com/esh3artech/barid/retry"
)

// Transport moves envelopes between processes, at least once: what Send has
// reported as accepted reaches some subscription, again and again, until it is
// acked. Order is kept within a priority as far as no redelivery disturbs it.
// Duplicates may happen and are the consumer's to suppress.
//
// All methods may be called by any number of goroutines at once. The suite
// deliverytest.TestTransport is this contract as tests.
//
// A Transport may have further abilities: Delayer, Depther, Pinger, Volatile,
// ErrorClassifier, Namer and DeadLetterer; a Subscription may be a Pauser; and an
// Incoming may be a QueueTeller and a StaleTeller. They are detected by type
// assertion.
type Transport interface {
	// Send makes every envelope of the batch durable, in the batch's order, and
	// returns nil when all are. Otherwise it returns one error for each envelope,
	// in order, nil where it is durable. The errors match, by errors.Is,
	// ErrUnroutable, ErrRefused, ErrBlocked, ErrTooLarge, ErrInvalid, ErrClosed,
	// a context's error where nothing was sent, or ErrOutcomeUnknown where the
	// envelope may or may not be durable; sending that one again is safe.
	//
	// Send returns by ctx's end at the latest; with a ctx that has ended it does
	// nothing. It retains neither the batch nor what is in it.
	//
	// It takes envelopes as they are: it fills in nothing, no ID and no CreatedAt, and
	// checks no more than what it can't carry. That is the Publisher's to do. A caller
	// of Send has to see to it that Message.Validate accepts them; a message without an
	// ID or a Recipient is malformed to a consumer.
	Send(ctx context.Context, batch []Envelope) []error

	// Subscribe starts to fetch. It fails when the transport can't be reached by
	// ctx's end; later outages are the Subscription's to mend.
	Subscribe(ctx context.Context, config SubscribeConfig) (Subscription, error)

	// Close ends all subscriptions and waits for what is under way, for a
	// bounded time. Later calls of anything match ErrClosed; closing again
	// returns nil.
	Close() error
}

// defaultPrefetch is the default of SubscribeConfig.Prefetch.
const defaultPrefetch = 100

// SubscribeConfig says what a subscription may hold.
type SubscribeConfig struct {
	// Prefetch bounds, for each priority, how many incomings may be handed over
	// and not yet settled. Priorities that share a queue of the transport may
	// share their prefetch. Default 100.
	Prefetch int
}

// Subscription is a stream of incomings. It survives lost connections by
// itself: what was in hand when one was lost is stale, and comes again.
type Subscription interface {
	// Receive blocks until something has arrived and returns it, or ends with
	// ctx's error, or with one matching ErrClosed when there will be no more.
	// Any other error is passing: call again, after a pause. The slice is sorted,
	// highest priority first; it belongs to the subscription and is valid until
	// the next call. One goroutine calls Receive at a time.
	Receive(ctx context.Context) ([]Incoming, error)

	// Close stops fetching and gives back for redelivery what has not been
	// settled. It waits until acks given so far are on their way. Closing again
	// returns nil.
	Close() error
}

// Incoming is one receipt of a message. It is settled once, by Ack or Nack,
// from any goroutine; after the first of them both return ErrSettled. What is
// never settled comes again when its subscription closes or its process dies.
type Incoming interface {
	// Priority is the level it was queued at, known without decoding.
	Priority() Priority
	// Envelope decodes the message. What can't be decoded is a *MalformedError
	// with the bytes as they came. It returns the same each time.
	Envelope() (*Envelope, error)
	// Ack removes the message from the transport. It may be sent a little later,
	// together with others: an ack lost on the way leads to a redelivery.
	// ErrStale means that the connection it came by, or its subscription, is gone:
	// it will come again.
	Ack() error
	// Nack leaves the message for redelivery, to anyone, at once.
	Nack() error
}

// QueueTeller is an Incoming of a transport that has several queues for a priority,
// or one for several priorities. Consumers keep room for what can run in each.
type QueueTeller interface {
	// Queue is the name of the queue that the message came from, and how many
	// incomings of that queue may be in hand.
	Queue() (name string, prefetch int)
}

// RedeliveryTeller is an Incoming that knows whether its message was delivered before.
type RedeliveryTeller interface {
	// Redeliveries is how often the message was delivered before and not acked, as far
	// as is known: 0 for a first delivery, and at least 1 for any other. The first
	// delivery of a message that was sent again counts as a first one. crashes is
	// Envelope.Crashes. Both are known without decoding.
	Redeliveries() (times, crashes int)
}

// StaleTeller is an Incoming that knows when it can no longer be settled. A consumer
// asks it before it begins with a message: what is stale comes again, and would be
// handled twice.
type StaleTeller interface {
	// Stale says that the connection that the message came by, or its subscription, is
	// gone: Ack and Nack are ErrStale unless it was settled before. It stays true. A
	// connection that is just about to be lost is not known yet.
	Stale() bool
}

// Delayer is a Transport that can hold envelopes back by itself, durably.
type Delayer interface {
	// SendAfter is Send for envelopes that no subscription sees before delay
	// has passed, counted from some moment of the call. A delay of zero or less is
	// Send. Delays over the transport's own limit are shortened to it: the consumer
	// sees by NotBefore that the time has not come and delays again.
	SendAfter(ctx context.Context, delay time.Duration, batch []Envelope) []error
}

// Depther is a Transport that knows how much waits in it.
type Depther interface {
	// Depth returns what waits, not counting what is in hand, by priority. What
	// waits in a queue that priorities share may count for the lowest of them.
	Depth(ctx context.Context) (map[Priority]Depth, error)
}

// Depth is how much waits at one priority.
type Depth struct {
	// Messages that are ready to be fetched.
	Messages int64
	// Oldest is the age of the oldest of them; 0 when there is none or the
	// transport can't tell.
	Oldest time.Duration
}

// Pinger is a dependency that can be asked whether it is there.
type Pinger interface {
	// Ping returns nil when the dependency answered before ctx's end.
	Ping(ctx context.Context) error
}

// Pauser is a Subscription that can stop fetching without giving back what is
// in hand, so that other processes get what comes meanwhile.
type Pauser interface {
	// Pause stops fetching. Pausing again changes nothing.
	Pause(ctx context.Context) error
	// Resume goes on fetching.
	Resume(ctx context.Context) error
}

// Volatile is a Transport whose messages end with the process. With a Store their
// records stay claimed by the process while they wait in the transport, so that
// other processes send them after its end, and not before.
type Volatile interface {
	// Session names the process's messages: the same for everything that shares
	// them, another after every start.
	Session() string
}

// ErrorClassifier is a Transport that knows the errors of its own client, which a
// handler gets as well if it talks to the same kind of server. A Consumer on it
// classifies by it what neither ConsumerConfig.Classifier's rules nor the table of
// retry.Classifier know. So a mark by retry.Permanent or retry.After still
// decides, and the host overrules everything.
type ErrorClassifier interface {
	// ClassifyError is a retry.Rule: it tells err's class if it knows it, and false
	// otherwise. It looks through wrapping, does not keep err, and is called by any
	// number of goroutines at once.
	ClassifyError(err error) (retry.Class, bool)
}

// Namer is a Transport that has a name of its own, which then is the default
// of ConsumerConfig.Name.
type Namer interface {
	Name() string
}

// nameOf is the transport's own name, or else empty.
func nameOf(transport Transport) string {
	if namer, ok := transport.(Namer); ok {
		return namer.Name()
	}
	return ""
}

// sessionOf is that of a transport whose messages end with the process, or else
// empty. Records of what waits there come due some time after, for RetryWorkers
// to go on with, when nobody renews that.
func sessionOf(transport Transport) string {
	if volatile, ok := transport.(Volatile); ok {
		return volatile.Session()
	}
	return ""
}

// sessionHold is for how long, at least, what goes into a Volatile transport is
// claimed by who puts it there. RetryWorkers renew the claims more often than that,
// whatever their lease.
const sessionHold = time.Minute
