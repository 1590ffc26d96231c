package delivery

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Reason says why a message became a dead letter.
type Reason string

// The reasons.
const (
	ReasonPermanent  Reason = "permanent"   // the handler's error can't be mended by trying again
	ReasonExhausted  Reason = "exhausted"   // the last allowed attempt failed
	ReasonExpired    Reason = "expired"     // received after ExpiresAt
	ReasonMalformed  Reason = "malformed"   // could not be decoded
	ReasonAckTimeout Reason = "ack-timeout" // the end user never acknowledged
	ReasonBroker     Reason = "broker"      // the broker gave it up by itself
	ReasonCrashed    Reason = "crashed"     // its handler seems to end the process
)

// DeadLetter is a message that the pipeline gives up, with why.
type DeadLetter struct {
	// ID is the same each time that the same message of the same generation is
	// given up by the same consumer, so that a repeated put changes nothing.
	ID string
	// Envelope is the message. Of a malformed one it holds what could be read.
	Envelope Envelope
	// Raw is the body as it came, for a malformed message only.
	Raw []byte
	// Reason is why.
	Reason Reason
	// Error is the last error's text.
	Error string
	// Source is the name of the consumer that gave it up.
	Source string
	// At is when.
	At time.Time
	// Facts are what else is known about why it was given up, for people to read,
	// with names that whoever gave it up has chosen. The pipeline has none; a broker
	// may.
	Facts map[string]string
}

// DeadLetterer keeps dead letters. dlq.Manager is one; a Transport may be one
// by itself.
type DeadLetterer interface {
	// DeadLetter returns nil when all letters are durable. Putting a letter with
	// the ID of one that is there already replaces it.
	DeadLetter(ctx context.Context, letters ...DeadLetter) error
}

// deadLetterSpace makes dead-letter IDs differ from UUIDs made by others of
// the same text.
var deadLetterSpace = uuid.MustParse("5c0e3b9e-5b0c-4c8e-9a53-0d6f6c1c7b1d")

// newDeadLetter gives up envelope. A malformed one has no identity to derive
// an ID from, so it gets a random one: two equal bodies are two letters.
func newDeadLetter(source string, envelope *Envelope, reason Reason, cause error, now time.Time) DeadLetter {
	letter := DeadLetter{Envelope: *envelope, Reason: reason, Source: source, At: now}
	letter.Envelope.Crashes = 0
	if cause != nil {
		letter.Error = shorten(textOf(cause))
	}
	if reason == ReasonMalformed {
		letter.ID = NewID()
	} else {
		name := source + "\x00" + envelope.ID + "\x00" + strconv.Itoa(envelope.Generation)
		letter.ID = uuid.NewSHA1(deadLetterSpace, []byte(name)).String()
	}
	return letter
}

// Resolver takes back dead letters that turned out to be none, because the end
// user acknowledged the message after all. dlq.Manager is one.
type Resolver interface {
	// Resolve deletes the letters. It returns nil when none of them is there any
	// more; one that was not there before is no error.
	Resolve(ctx context.Context, ids ...string) error
}

func resolve(ctx context.Context, resolver Resolver, ids []string) error {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return resolver.Resolve(limited, ids...)
}
