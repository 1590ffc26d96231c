package rabbitmq

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/esh3artech/barid/delivery"
)

// The size of all headers is bounded by the frame that holds them: RabbitMQ's
// frame_max, 128 KiB by default.
const (
	maxHeaderBytes = 120 << 10
	// frameBytes is room for what else is in that frame: properties, of at most 255
	// bytes each.
	frameBytes = 4 << 10
	// stateBytes is kept free for what the pipeline adds to a message from attempt to
	// attempt, or to its dead letter, so that a message that was accepted once can
	// always be sent again.
	stateBytes = 1 << 10
	// maxCount bounds Attempt, Generation and Crashes. What is received is below it, so that
	// it can be sent again with one more.
	maxCount = math.MaxInt32
	// maxFailureBytes bounds the text of a failure in the history that is received.
	// The pipeline's own texts are shorter.
	maxFailureBytes = 515
)

// What has to be negotiated with the broker at least.
const (
	// minFrameBytes leaves room for the headers of small messages.
	minFrameBytes = 8 << 10
	// minChannels is how many channels a transport uses at once to publish or to declare.
	minChannels = 8
)

// checkNegotiated reports what the broker, or the URL, allows a connection too little
// of. The error is ErrConfig.
func (c *connection) checkNegotiated(channels int) error {
	var faults []error
	if got := int(c.amqp.Config.ChannelMax); got < channels {
		faults = append(faults, fmt.Errorf("%w: channel_max of the broker or the URL is %d, want at least %d", ErrConfig, got, channels))
	}
	if got := c.amqp.Config.FrameSize; got != 0 && got < minFrameBytes {
		faults = append(faults, fmt.Errorf("%w: frame_max of the broker is %d bytes, want at least %d", ErrConfig, got, minFrameBytes))
	}
	return errors.Join(faults...)
}

// checkTexts reports names and keys that AMQP can't carry, or that the broker would
// change: it takes line breaks out of names.
func (t Topology) checkTexts(fault func(format string, args ...any)) {
	check := func(field, text string, empty bool) {
		switch {
		case text == "" && !empty:
			fault("%s is empty", field)
		case len(text) > maxShortBytes:
			fault("%s has %d bytes, want at most %d", field, len(text), maxShortBytes)
		case strings.ContainsFunc(text, unicode.IsControl):
			fault("%s is %q, want no control characters such as a line break", field, text)
		}
	}
	route := func(field string, r Route) {
		check(field+".Exchange", r.Exchange, true)
		check(field+".Key", r.Key, true)
	}
	for i, e := range t.Exchanges {
		check(fmt.Sprintf("Exchanges[%d].Name", i), e.Name, false)
		check(fmt.Sprintf("Exchanges[%d].Kind", i), e.Kind, false)
	}
	for i, q := range t.Queues {
		check(fmt.Sprintf("Queues[%d].Name", i), q.Name, false)
	}
	for i, b := range t.Bindings {
		field := fmt.Sprintf("Bindings[%d].", i)
		check(field+"Source", b.Source, false)
		check(field+"Key", b.Key, true)
		check(field+"Destination", b.Destination, false)
	}
	for i := range t.Levels {
		for _, shard := range t.Levels[i].shards() {
			field := fmt.Sprintf("Levels[%d].", i)
			route(field+"Route", shard.Route)
			check(field+"Address", shard.Address, true)
			check(field+"Queue", shard.Queue, true)
		}
	}
	for i, exchange := range t.Delays {
		check(fmt.Sprintf("Delays[%d]", i), exchange, false)
	}
	route("DeadLetter", t.DeadLetter)
	check("DeadLetterQueue", t.DeadLetterQueue, true)
	check("UnroutableQueue", t.UnroutableQueue, true)
}

// limits are the sizes that the broker takes.
type limits struct {
	headers int
	body    int
}

// messageBytes is how much room the message itself takes among the headers (AMQP
// 0-9-1, 4.2.5.5), at most. It is made of the message alone: of one that is received
// it is as much as when it is sent again, whatever its headers looked like.
func messageBytes(e *delivery.Envelope) int {
	const (
		ownHeaders = 256   // names, types and lengths, and all numbers
		perHeader  = 2 * 5 // type and lengths, or the two lengths of appendString
	)
	size := ownHeaders + len(e.Recipient) + len(e.IdempotencyKey) + len(e.Subject)
	for name, value := range e.Headers {
		size += perHeader + len(name) + len(value)
	}
	return size
}

// Times travel as Unix nanoseconds in 64 bits.
var (
	earliest = time.Unix(0, math.MinInt64)
	latest   = time.Unix(0, math.MaxInt64)
)

// validTime says whether a time can be sent.
func validTime(t time.Time) bool { return !t.Before(earliest) && !t.After(latest) }

// validCount says whether a number of attempts or replays can be sent, and one more
// as well.
func validCount(n int) bool { return n >= 0 && n < maxCount }

// validFailure says whether a failure can be sent, and stored anywhere.
func validFailure(f *delivery.Failure) bool {
	return (f.At.IsZero() || validTime(f.At)) && f.Attempt >= 0 && f.Attempt <= maxCount
}

// restrict leaves of a malformed message what any store of dead letters can hold.
func restrict(e *delivery.Envelope) {
	for _, field := range []*string{&e.ID, &e.Type, &e.ContentType} {
		*field = cut(*field, delivery.MaxIDBytes)
	}
	for _, field := range []*string{&e.Recipient, &e.IdempotencyKey, &e.Subject} {
		*field = cut(*field, delivery.MaxAttributeBytes)
	}
	for _, count := range []*int{&e.Attempt, &e.Generation, &e.Crashes} {
		if !validCount(*count) {
			*count = 0
		}
	}
	for _, at := range []*time.Time{&e.CreatedAt, &e.NotBefore, &e.ExpiresAt} {
		if !validTime(*at) {
			*at = time.Time{}
		}
	}
	if !e.Priority.Valid() {
		e.Priority = delivery.Normal
	}
	if slices.ContainsFunc(e.History, func(f delivery.Failure) bool { return !validFailure(&f) }) {
		e.History = nil
	}
	size := 0
	for name, value := range e.Headers {
		if size += len(name) + len(value); name == "" || len(name) > delivery.MaxIDBytes {
			size = math.MaxInt32
			break
		}
	}
	if size > delivery.MaxHeaderBytes {
		e.Headers = nil
	}
}

// cut shortens a text that is over the limit.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}
