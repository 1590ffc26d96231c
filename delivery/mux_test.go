package delivery_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

// route is one whose handler returns an error that names it.
func route(pattern string) delivery.Route {
	return delivery.Route{Type: pattern, Handler: func(context.Context, delivery.Message) error { return errors.New(pattern) }}
}

func TestMuxRoutes(t *testing.T) {
	handler, err := delivery.Mux(route("*"), route("mail.*"), route("mail"), route("mail.welcome"), route("mail.welcome.*"), route("sms"))
	require.NoError(t, err)
	for kind, want := range map[string]string{
		"sms":                "sms",
		"mail":               "mail",
		"mail.":              "mail.*",
		"mail.goodbye":       "mail.*",
		"mail.welcome":       "mail.welcome",
		"mail.welcome.":      "mail.welcome.*",
		"mail.welcome.again": "mail.welcome.*",
		"mailing":            "*",
		"SMS":                "*",
		"":                   "*",
	} {
		assert.EqualError(t, handler(t.Context(), delivery.Message{Type: kind}), want, "type %q", kind)
	}
}

// The order of routes makes no difference, and the longest one that fits is taken.
func TestMuxTakesTheLongest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{0,3}\*|[ab]{1,3}`), 1, 12, rapid.ID[string]).Draw(t, "patterns")
		kind := rapid.StringMatching(`[ab]{0,4}`).Draw(t, "type")
		var routes []delivery.Route
		want, longest := "", -1
		for _, pattern := range patterns {
			routes = append(routes, route(pattern))
			prefix, open := strings.CutSuffix(pattern, "*")
			length := len(prefix)
			if !open {
				length = math.MaxInt // an exact one beats all
			}
			if (kind == prefix || open && strings.HasPrefix(kind, prefix)) && length > longest {
				want, longest = pattern, length
			}
		}
		handler, err := delivery.Mux(routes...)
		require.NoError(t, err)
		err = handler(context.Background(), delivery.Message{Type: kind})
		if want == "" {
			var unrouted *delivery.UnroutedError
			require.ErrorAs(t, err, &unrouted)
			slices.Sort(patterns)
			require.Equal(t, &delivery.UnroutedError{Type: kind, Handled: patterns}, unrouted)
			return
		}
		require.EqualError(t, err, want)
	})
}

func TestMuxFaults(t *testing.T) {
	_, err := delivery.Mux()
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "no Route")

	_, err = delivery.Mux(
		route("sms"),
		delivery.Route{Type: "push"},
		route("sms"),
		route(""),
		route("a.*.b"),
		route("**"),
		route(strings.Repeat("x", 256)),
		delivery.Route{Type: "mail", Handler: delivery.JSON[int](nil)},
	)
	require.ErrorIs(t, err, delivery.ErrConfig)
	assert.Equal(t, []string{
		`delivery: invalid config: Route[1].Handler is nil`,
		`delivery: invalid config: Route[2].Type is "sms", as that of Route[0]`,
		`delivery: invalid config: Route[3].Type is empty, want a type, or * for what has no other route`,
		`delivery: invalid config: Route[4].Type is "a.*.b", want no * but at its end`,
		`delivery: invalid config: Route[5].Type is "**", want no * but at its end`,
		`delivery: invalid config: Route[6].Type has 256 bytes, a message's has at most 255`,
		`delivery: invalid config: Route[7].Handler is nil`,
	}, strings.Split(err.Error(), "\n"))

	longest := strings.Repeat("x", 255)
	_, err = delivery.Mux(route(longest), route(longest+"*"))
	require.NoError(t, err)
}

// A handler does not change with the routes that it was made of.
func TestMuxKeepsNothingOfItsRoutes(t *testing.T) {
	routes := []delivery.Route{route("sms"), route("mail.*")}
	handler, err := delivery.Mux(routes...)
	require.NoError(t, err)
	routes[0], routes[1] = delivery.Route{}, delivery.Route{}
	require.EqualError(t, handler(t.Context(), delivery.Message{Type: "sms"}), "sms")
	require.EqualError(t, handler(t.Context(), delivery.Message{Type: "mail.x"}), "mail.*")
}

func TestUnroutedError(t *testing.T) {
	handler, err := delivery.Mux(route("b.*"), route("a"))
	require.NoError(t, err)
	err = handler(t.Context(), delivery.Message{Type: "c"})
	require.EqualError(t, err, `delivery: no handler for type "c", there are handlers for "a", "b.*"`)
	assert.Equal(t, retry.ClassPermanent, retry.Classifier{}.Classify(err))

	hostile := &delivery.UnroutedError{Type: "\x00\x1b[31m\n\u202e\xff" + strings.Repeat("\U0010ffff", 10_000)}
	for range 10_000 {
		hostile.Handled = append(hostile.Handled, strings.Repeat("x", 255))
	}
	text := hostile.Error()
	assert.Contains(t, text, `"\x00\x1b[31m\n\u202e\xff`)
	assert.Contains(t, text, "and 9992 more")
	assert.Less(t, len(text), 2000)
	assert.NotContains(t, text, "\n")
}

// A message of a type that nobody handles becomes a dead letter that says so, and
// harms no other; when there is a handler it can be replayed.
func TestUnroutedMessagesAreDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := memory.New(memory.Config{})
		defer func() { _ = transport.Close() }()
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
		require.NoError(t, err)
		letters := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), publisher, dlq.Config{})
		handled := make(chan string, 10)
		handle := func(_ context.Context, message delivery.Message) error {
			handled <- message.Type
			return nil
		}
		consume := func(routes ...delivery.Route) {
			handler, err := delivery.Mux(routes...)
			require.NoError(t, err)
			consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
				Retry: retry.Exponential{MaxRetries: 5}, DeadLetters: letters,
			})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- consumer.Run(ctx) }()
			synctest.Wait()
			cancel()
			require.NoError(t, <-ended)
		}

		require.NoError(t, publisher.Publish(t.Context(),
			delivery.Message{ID: "1", Recipient: "r", Type: "fax"}, delivery.Message{ID: "2", Recipient: "r", Type: "sms"}))
		consume(delivery.Route{Type: "sms", Handler: handle})
		require.Equal(t, "sms", <-handled)
		page, err := letters.List(t.Context(), dlq.Query{})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
		letter := page.Entries[0]
		assert.Equal(t, delivery.ReasonPermanent, letter.Reason)
		assert.Equal(t, `delivery: no handler for type "fax", there are handlers for "sms"`, letter.Error)

		_, err = letters.Requeue(t.Context(), letter.ID)
		require.NoError(t, err)
		consume(delivery.Route{Type: "sms", Handler: handle}, delivery.Route{Type: "fax", Handler: handle})
		require.Equal(t, "fax", <-handled)
	})
}

func TestNewJSONMessage(t *testing.T) {
	type order struct {
		Number int `json:"number"`
	}
	message, err := delivery.NewJSONMessage(delivery.Message{Recipient: "r", Type: "order.created", Priority: delivery.High}, order{Number: 7})
	require.NoError(t, err)
	assert.Equal(t, delivery.Message{
		Recipient: "r", Type: "order.created", Priority: delivery.High, Body: []byte(`{"number":7}`), ContentType: "application/json",
	}, message)
	var got order
	require.NoError(t, delivery.JSON(func(_ context.Context, value order) error {
		got = value
		return nil
	})(t.Context(), message))
	assert.Equal(t, order{Number: 7}, got)

	message, err = delivery.NewJSONMessage(delivery.Message{ContentType: "application/vnd.order+json"}, order{})
	require.NoError(t, err)
	assert.Equal(t, "application/vnd.order+json", message.ContentType)

	for name, test := range map[string]struct {
		message delivery.Message
		value   any
		want    string
	}{
		"body":      {delivery.Message{Body: []byte("x")}, order{}, "delivery: message Body is set, want the value alone"},
		"type":      {delivery.Message{}, map[string]any{"secret": make(chan int)}, "delivery: message Body can't be made of a map[string]interface {}: chan int has no JSON form"},
		"value":     {delivery.Message{}, math.NaN(), "delivery: message Body can't be made of a float64"},
		"marshaler": {delivery.Message{}, unmarshalable{}, "delivery: message Body can't be made of a delivery_test.unmarshalable"},
	} {
		t.Run(name, func(t *testing.T) {
			message, err := delivery.NewJSONMessage(test.message, test.value)
			require.ErrorIs(t, err, delivery.ErrInvalid)
			require.EqualError(t, err, test.want)
			assert.Zero(t, message)
		})
	}
	_, err = delivery.NewJSONMessage(delivery.Message{}, unmarshalable{})
	require.ErrorIs(t, err, errUnmarshalable)
}

type unmarshalable struct{}

var errUnmarshalable = errors.New("the secret is 42")

func (unmarshalable) MarshalJSON() ([]byte, error) { return nil, errUnmarshalable }
