package rabbitmq

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestForeignMessages(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	subscription := subscribe(t, transport, 100)
	kinds := 0
	raw(t, c.URL, func(channel *amqp.Channel) {
		require.NoError(t, channel.Confirm(false))
		for kind, value := range hostile() {
			kinds++
			confirm, err := channel.PublishWithDeferredConfirm(c.Name, "normal", true, false, amqp.Publishing{
				MessageId: kind, Body: []byte(kind), Headers: amqp.Table{headerRecipient: "you", headerSubject: value},
			})
			require.NoError(t, err)
			require.True(t, confirm.Wait())
		}
	})
	for _, in := range receive(t, subscription, kinds) {
		_, err := in.Envelope()
		var fault *delivery.MalformedError
		require.ErrorAs(t, err, &fault)
		assert.Equal(t, fault.Envelope.ID, string(fault.Raw))
		_, again := in.Envelope()
		assert.Equal(t, err, again)
		assert.NoError(t, transport.DeadLetter(context.Background(), delivery.DeadLetter{
			ID: "letter of " + fault.Envelope.ID, Envelope: fault.Envelope, Raw: fault.Raw, Reason: delivery.ReasonMalformed,
			Error: fault.Error(), Source: "test", At: time.Unix(1, 2),
		}))
		assert.NoError(t, in.Ack())
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, message("good")))
	good := receive(t, subscription, 1)[0]
	_, err := good.Envelope()
	require.NoError(t, err)
	require.NoError(t, good.Ack())
	raw(t, c.URL, func(channel *amqp.Channel) {
		for range kinds {
			d, ok, err := channel.Get(c.Name+".dlq", true)
			require.NoError(t, err)
			require.True(t, ok)
			assert.Equal(t, d.MessageId, string(d.Body))
			assert.Equal(t, "letter of "+d.MessageId, d.Headers[headerDeadID])
			assert.Equal(t, "malformed", d.Headers[headerDeadReason])
			assert.Contains(t, d.Headers[headerDeadError], "malformed")
			assert.Equal(t, "test", d.Headers[headerDeadSource])
			assert.Equal(t, int64(1_000_000_002), d.Headers[headerDeadAt])
			assert.Equal(t, amqp.Persistent, d.DeliveryMode)
		}
	})
}

func TestEncodeLetterNeverFails(t *testing.T) {
	e := valid()
	e.Headers = map[string]string{"x-host": "1", "a": "b"}
	e.History = []delivery.Failure{{Error: "first"}}
	e.Body = []byte("body")
	at := time.Unix(5, 6)
	p := amqp.Publishing{Headers: amqp.Table{}}
	testLimits.encodeLetter(&delivery.DeadLetter{
		ID: "letter", Envelope: e, Reason: delivery.ReasonExhausted, Error: "last", Source: "me", At: at,
	}, &p)
	assert.Equal(t, "1", p.MessageId)
	assert.Equal(t, "letter", p.Headers[headerDeadID])
	assert.Equal(t, "exhausted", p.Headers[headerDeadReason])
	assert.Equal(t, "last", p.Headers[headerDeadError])
	assert.Equal(t, "me", p.Headers[headerDeadSource])
	assert.Equal(t, at.UnixNano(), p.Headers[headerDeadAt])
	got, err := testLimits.decode(deliver(&p))
	require.NoError(t, err)
	assert.Equal(t, e.Headers, got.Headers)
	assert.Equal(t, "first", got.History[0].Error)

	huge := strings.Repeat("ä", 1<<20)
	for name, letter := range map[string]delivery.DeadLetter{
		"empty":       {},
		"huge fields": {ID: huge, Source: huge, Error: huge, Reason: delivery.Reason(huge)},
		"huge envelope": {Raw: []byte("raw"), Envelope: delivery.Envelope{
			Message: delivery.Message{ID: huge, Type: huge, ContentType: huge, Recipient: huge, Subject: huge, IdempotencyKey: huge, Headers: map[string]string{"a": huge}},
			History: []delivery.Failure{{Error: huge}},
		}},
		"huge header name": {Envelope: delivery.Envelope{Message: delivery.Message{Headers: map[string]string{huge: ""}}}},
		"impossible time":  {Envelope: delivery.Envelope{History: []delivery.Failure{{At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := amqp.Publishing{Headers: amqp.Table{}}
			testLimits.encodeLetter(&letter, &p)
			total := 0
			for name, value := range p.Headers {
				assert.LessOrEqual(t, len(name), maxShortBytes)
				if text, ok := value.(string); ok {
					total += len(text)
				}
				total += len(name) + 14
			}
			assert.LessOrEqual(t, total, maxHeaderBytes)
			assert.LessOrEqual(t, max(len(p.MessageId), len(p.Type), len(p.ContentType)), maxShortBytes)
			if letter.Raw != nil {
				assert.Equal(t, letter.Raw, p.Body)
			}
		})
	}
}

func FuzzDecodeLetter(f *testing.F) {
	f.Add("letter", "exhausted", "3:abc1:d", int64(5), []byte("body"))
	f.Add("letter", "malformed", "9:abc", int64(-5), []byte(nil))
	f.Fuzz(func(t *testing.T, id, reason, facts string, at int64, body []byte) {
		d := amqp.Delivery{Body: body, MessageId: id, Headers: amqp.Table{
			headerDeadID: id, headerDeadReason: reason, headerDeadFacts: facts, headerDeadAt: at, headerRecipient: id,
		}}
		letter, ok := testLimits.decodeLetter(&d, &delivery.Envelope{})
		named := func(text string) bool { return text != "" && len(text) <= maxShortBytes }
		require.Equal(t, named(id) && named(reason), ok)
		if !ok {
			return
		}
		p := amqp.Publishing{Headers: amqp.Table{}}
		testLimits.encodeLetter(&letter, &p)
		again, ok := testLimits.decodeLetter(deliver(&p), &letter.Envelope)
		require.True(t, ok)
		require.Equal(t, letter.Reason, again.Reason)
		require.Equal(t, letter.Facts, again.Facts)
		require.True(t, letter.At.Equal(again.At))
	})
}
