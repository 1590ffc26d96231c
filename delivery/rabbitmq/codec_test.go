package rabbitmq

import (
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

var testLimits = limits{headers: maxHeaderBytes, body: 1 << 20}

// deliver is what the broker makes of a publishing.
func deliver(p *amqp.Publishing) *amqp.Delivery {
	headers := make(amqp.Table, len(p.Headers))
	for name, value := range p.Headers {
		headers[name] = value
	}
	return &amqp.Delivery{
		Headers: headers, ContentType: p.ContentType, MessageId: p.MessageId, Type: p.Type,
		Timestamp: time.Unix(p.Timestamp.Unix(), 0), Body: p.Body,
	}
}

func anyTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" zero") {
		return time.Time{}
	}
	return time.Unix(0, rapid.Int64().Draw(t, label)).UTC()
}

func TestCodecKeepsEveryField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		short := rapid.StringN(0, 60, delivery.MaxIDBytes)
		text := rapid.StringN(0, 200, delivery.MaxAttributeBytes)
		name := rapid.OneOf(
			rapid.StringN(1, 60, delivery.MaxIDBytes),
			rapid.SampledFrom([]string{"CC", "BCC", "x-death", "X-Trace", "barid-recipient", "Barid-x", "x-" + strings.Repeat("n", 253), "cc"}),
		)
		want := delivery.Envelope{
			Message: delivery.Message{
				ID:             rapid.StringN(1, 60, delivery.MaxIDBytes).Draw(t, "ID"),
				IdempotencyKey: text.Draw(t, "key"),
				Recipient:      rapid.StringN(1, 200, delivery.MaxAttributeBytes).Draw(t, "recipient"),
				Subject:        text.Draw(t, "subject"),
				Type:           short.Draw(t, "type"),
				ContentType:    short.Draw(t, "content type"),
				Priority:       delivery.Priority(rapid.IntRange(-1, 2).Draw(t, "priority")),
				CreatedAt:      anyTime(t, "created"),
				RequireAck:     rapid.Bool().Draw(t, "ack"),
			},
			Attempt:    rapid.IntRange(0, maxCount-1).Draw(t, "attempt"),
			Generation: rapid.IntRange(0, maxCount-1).Draw(t, "generation"),
		}
		if headers := rapid.MapOfN(name, text, 0, 12).Draw(t, "headers"); len(headers) > 0 {
			want.Headers = headers
		}
		if body := rapid.SliceOf(rapid.Byte()).Draw(t, "body"); len(body) > 0 {
			want.Body = body
		}
		want.NotBefore, want.ExpiresAt = anyTime(t, "not before"), anyTime(t, "expires")
		if !want.ExpiresAt.IsZero() && want.ExpiresAt.Before(want.NotBefore) {
			want.NotBefore, want.ExpiresAt = want.ExpiresAt, want.NotBefore
		}
		for range rapid.IntRange(0, delivery.MaxHistory).Draw(t, "history") {
			want.History = append(want.History, delivery.Failure{
				At:      time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
				Attempt: rapid.IntRange(0, 99).Draw(t, "attempt"),
				Error:   rapid.StringN(0, 100, 515).Draw(t, "error"),
			})
		}
		p := amqp.Publishing{Headers: amqp.Table{}}
		require.NoError(t, testLimits.encode(&want, time.Time{}, &p))
		require.NoError(t, p.Headers.Validate())
		require.Equal(t, amqp.Persistent, p.DeliveryMode)
		require.Empty(t, p.Expiration)
		require.Zero(t, p.Priority)
		for header := range p.Headers {
			require.LessOrEqual(t, len(header), maxShortBytes)
			require.NotEqual(t, "CC", header)
			require.NotEqual(t, "BCC", header)
			require.False(t, hasPrefixFold(header, "x-"), header)
		}
		got, err := testLimits.decode(deliver(&p))
		require.NoError(t, err)
		require.Equal(t, &want, got)
	})
}

func valid() delivery.Envelope {
	return delivery.Envelope{Message: delivery.Message{ID: "1", Recipient: "you"}}
}

func TestEncodeChecksSizes(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*delivery.Envelope)
		want   error
	}{
		"ok":            {func(*delivery.Envelope) {}, nil},
		"no ID":         {func(e *delivery.Envelope) { e.ID = "" }, delivery.ErrInvalid},
		"long ID":       {func(e *delivery.Envelope) { e.ID = strings.Repeat("x", 256) }, delivery.ErrTooLarge},
		"no recipient":  {func(e *delivery.Envelope) { e.Recipient = "" }, delivery.ErrInvalid},
		"long key":      {func(e *delivery.Envelope) { e.Headers = map[string]string{strings.Repeat("x", 256): ""} }, delivery.ErrTooLarge},
		"priority":      {func(e *delivery.Envelope) { e.Priority = 9 }, delivery.ErrInvalid},
		"attempt":       {func(e *delivery.Envelope) { e.Attempt = -1 }, delivery.ErrInvalid},
		"generation":    {func(e *delivery.Envelope) { e.Generation = -1 }, delivery.ErrInvalid},
		"many attempts": {func(e *delivery.Envelope) { e.Attempt = maxCount + 1 }, delivery.ErrInvalid},
		"largest body":  {func(e *delivery.Envelope) { e.Body = make([]byte, 1<<20) }, nil},
		"large body":    {func(e *delivery.Envelope) { e.Body = make([]byte, 1<<20+1) }, delivery.ErrTooLarge},
		"large headers": {func(e *delivery.Envelope) { e.Headers = map[string]string{"a": strings.Repeat("x", 64<<10)} }, delivery.ErrTooLarge},
		"history": {func(e *delivery.Envelope) {
			e.History = []delivery.Failure{{At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}
		}, delivery.ErrInvalid},
		"many headers": {func(e *delivery.Envelope) {
			// Few bytes by the message's own count, many on the wire.
			e.Headers = map[string]string{}
			for i := range 20_000 {
				e.Headers[string([]byte{byte(i), byte(i >> 8), 1})] = ""
			}
		}, delivery.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			e := valid()
			test.change(&e)
			p := amqp.Publishing{Headers: amqp.Table{}}
			require.ErrorIs(t, testLimits.encode(&e, time.Time{}, &p), test.want)
		})
	}
}

func TestEncodeKeepsTheLatestHistoryThatFits(t *testing.T) {
	e := valid()
	e.Headers = map[string]string{"a": strings.Repeat("x", 60<<10)}
	for i := range delivery.MaxHistory {
		e.History = append(e.History, delivery.Failure{Attempt: i, Error: strings.Repeat("\x01", 3000)})
	}
	p := amqp.Publishing{Headers: amqp.Table{}}
	require.NoError(t, testLimits.encode(&e, time.Now(), &p))
	got, err := testLimits.decode(deliver(&p))
	require.NoError(t, err)
	require.NotEmpty(t, got.History)
	assert.Less(t, len(got.History), delivery.MaxHistory)
	assert.Equal(t, delivery.MaxHistory-1, got.History[len(got.History)-1].Attempt)
	again := amqp.Publishing{Headers: amqp.Table{}}
	assert.NoError(t, testLimits.encode(got, time.Time{}, &again), "what was received can be sent again")
}

// hostile is every type that a header can have.
func hostile() map[string]any {
	return map[string]any{
		"nil": nil, "bool": true, "byte": byte(1), "int8": int8(-1), "int16": int16(-1), "uint16": uint16(1),
		"int32": int32(-1), "uint32": uint32(1), "int64": int64(-1), "int": 1, "float32": float32(1), "float64": 1.5,
		"decimal": amqp.Decimal{Scale: 2, Value: 123}, "time": time.Unix(1, 0), "bytes": []byte("b"),
		"array": []any{"a", int32(1), []any{}}, "table": amqp.Table{"a": amqp.Table{}},
	}
}

func TestDecodeRefusesWhatIsNotOurs(t *testing.T) {
	good := func() *amqp.Delivery {
		return &amqp.Delivery{MessageId: "1", Headers: amqp.Table{headerRecipient: "you"}, Body: []byte("body")}
	}
	malformed := func(t *testing.T, d *amqp.Delivery) {
		t.Helper()
		_, err := testLimits.decode(d)
		var fault *delivery.MalformedError
		require.ErrorAs(t, err, &fault)
		assert.Equal(t, d.Body, fault.Raw)
		assert.NotEmpty(t, fault.Problem)
		assert.Equal(t, d.MessageId, fault.Envelope.ID)
	}
	_, err := testLimits.decode(good())
	require.NoError(t, err)
	t.Run("nothing at all", func(t *testing.T) { malformed(t, &amqp.Delivery{}) })
	t.Run("no ID", func(t *testing.T) { d := good(); d.MessageId = ""; malformed(t, d) })
	t.Run("no recipient", func(t *testing.T) { d := good(); delete(d.Headers, headerRecipient); malformed(t, d) })
	t.Run("large body", func(t *testing.T) { d := good(); d.Body = make([]byte, 1<<20+1); malformed(t, d) })
	t.Run("large headers", func(t *testing.T) {
		d := good()
		for i := range 100 {
			d.Headers[strings.Repeat("h", i+1)] = strings.Repeat("x", 1200)
		}
		malformed(t, d)
	})
	for kind, value := range hostile() {
		for _, name := range []string{headerRecipient, headerKey, headerSubject, headerHistory, headerReserved} {
			t.Run(name+" "+kind, func(t *testing.T) { d := good(); d.Headers[name] = value; malformed(t, d) })
		}
		_, integral := integer(value)
		for _, name := range []string{headerPriority, headerAttempt, headerGeneration, headerCreated, headerNotBefore, headerExpires} {
			if !integral {
				t.Run(name+" "+kind, func(t *testing.T) { d := good(); d.Headers[name] = value; malformed(t, d) })
			}
		}
		if kind != "bool" {
			t.Run("require-ack "+kind, func(t *testing.T) { d := good(); d.Headers[headerRequireAck] = value; malformed(t, d) })
		}
		t.Run("ignored "+kind, func(t *testing.T) {
			d := good()
			for _, name := range []string{"x-death", "x-delivery-count", "CC", "BCC", "barid-of-tomorrow", headerDue} {
				d.Headers[name] = value
			}
			e, err := testLimits.decode(d)
			require.NoError(t, err)
			assert.Empty(t, e.Headers)
			dueOf(d)
		})
	}
	for name, value := range map[string]any{
		headerPriority: int64(3), headerAttempt: int64(-1), headerGeneration: int64(math.MinInt64),
		headerHistory: "{", headerReserved: "5:abc",
	} {
		t.Run("value of "+name, func(t *testing.T) { d := good(); d.Headers[name] = value; malformed(t, d) })
	}
	t.Run("priority that wraps", func(t *testing.T) { d := good(); d.Headers[headerPriority] = int64(256); malformed(t, d) })
}

// What others put into the headers, the broker itself among them, is text or nothing.
func TestDecodeRendersForeignHeaders(t *testing.T) {
	texts := map[string]string{
		"bool": "true", "byte": "1", "int8": "-1", "int16": "-1", "uint16": "1", "int32": "-1", "uint32": "1", "int64": "-1",
		"int": "1", "float32": "1", "float64": "1.5", "time": "1970-01-01T00:00:01Z", "bytes": "b",
	}
	for kind, value := range hostile() {
		t.Run(kind, func(t *testing.T) {
			d := &amqp.Delivery{MessageId: "1", Headers: amqp.Table{headerRecipient: "you", "foreign": value, "": value}}
			e, err := testLimits.decode(d)
			require.NoError(t, err)
			text, found := e.Headers["foreign"]
			assert.Equal(t, texts[kind], text)
			assert.Equal(t, texts[kind] != "", found)
			assert.NotContains(t, e.Headers, "")
			requireCanGoOn(t, d)
		})
	}
}

func TestDecodeReadsEveryIntegerAndForeignTimestamps(t *testing.T) {
	for kind, value := range map[string]any{
		"byte": byte(2), "int8": int8(2), "int16": int16(2), "uint16": uint16(2), "int32": int32(2),
		"uint32": uint32(2), "int64": int64(2), "int": 2,
	} {
		t.Run(kind, func(t *testing.T) {
			created := time.Unix(1700000000, 0).UTC()
			e, err := testLimits.decode(&amqp.Delivery{
				MessageId: "1", Timestamp: created,
				Headers: amqp.Table{headerRecipient: "you", headerAttempt: value, headerPriority: value},
			})
			require.NoError(t, err)
			assert.Equal(t, 2, e.Attempt)
			assert.Equal(t, delivery.Urgent, e.Priority)
			assert.Equal(t, created, e.CreatedAt)
		})
	}
}

// FuzzDecode makes headers of every type out of bytes.
func FuzzDecode(f *testing.F) {
	f.Add("1", "you", headerHistory, `[{"at":"2020-01-01T00:00:00Z","error":"x"}]`, byte(13), int64(1), []byte("body"))
	f.Add("1", "you", headerHistory, `[{"at":"9999-12-31T23:59:59-23:59","error":"\ud800"}]`, byte(13), int64(1), []byte("body"))
	f.Add("1", "you", headerReserved, "1:a1:b", byte(13), int64(1), []byte("body"))
	f.Add("1", "you", headerGeneration, "", byte(8), int64(math.MaxInt64), []byte("body"))
	f.Add("", "", "x-death", "", byte(11), int64(-1), []byte{})
	f.Fuzz(func(t *testing.T, id, recipient, name, text string, kind byte, number int64, body []byte) {
		values := []any{
			nil, number > 0, byte(number), int8(number), int16(number), uint16(number), int32(number), uint32(number),
			number, float32(number), float64(number), []any{text, number}, amqp.Table{name: text}, text, []byte(text),
			amqp.Decimal{Scale: byte(number), Value: int32(number)}, time.Unix(number, 0),
		}
		d := &amqp.Delivery{
			MessageId: id, Body: body, Timestamp: time.Unix(number, 0),
			Headers: amqp.Table{headerRecipient: recipient, name: values[int(kind)%len(values)]},
		}
		requireCanGoOn(t, d)
	})
}

func BenchmarkEncode(b *testing.B) {
	e := valid()
	e.Type, e.CreatedAt, e.Body = "benchmark", time.Now(), make([]byte, 1024)
	p := amqp.Publishing{Headers: amqp.Table{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(p.Headers)
		if err := testLimits.encode(&e, time.Time{}, &p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	e := valid()
	e.Type, e.CreatedAt, e.Body = "benchmark", time.Now(), make([]byte, 1024)
	p := amqp.Publishing{Headers: amqp.Table{}}
	require.NoError(b, testLimits.encode(&e, time.Time{}, &p))
	d := deliver(&p)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := testLimits.decode(d); err != nil {
			b.Fatal(err)
		}
	}
}
