package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/esh3artech/barid/retry"
)

// Route is one type of messages, or several, with their Handler.
type Route struct {
	// Type is which messages the Handler gets, by Message.Type: those of the same
	// type; with a * at its end, those whose type begins with what is before it; *
	// alone, those of any type, and of none.
	Type string
	// Handler delivers them; see JSON and Typed.
	Handler Handler
}

// Mux makes one Handler of several: each message goes to the Handler of its type, or
// else to that of the longest beginning of it, or else to that of *. So the order of
// routes does not matter. A message that has no route is a permanent failure, by an
// *UnroutedError: it becomes a dead letter that can be replayed when there is one. A
// route for * that returns a retry.Later error has it wait instead.
//
// The error is ErrConfig and names every fault: no routes at all, a type that is
// empty, too long for a message, repeated, or has a * before its end, and a Handler
// that is nil. What Mux returns keeps nothing of routes and does not change, so it may
// be used by any number of consumers at once.
func Mux(routes ...Route) (Handler, error) {
	m := &mux{exact: make(map[string]Handler)}
	var faults []error
	if len(routes) == 0 {
		faults = append(faults, fmt.Errorf("%w: Mux has no Route", ErrConfig))
	}
	seen := make(map[string]int, len(routes))
	for i, route := range routes {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%w: Route[%d]."+format, append([]any{ErrConfig, i}, args...)...))
		}
		prefix, open := strings.CutSuffix(route.Type, "*")
		first, repeated := seen[route.Type]
		switch {
		case route.Type == "":
			fault("Type is empty, want a type, or * for what has no other route")
		case repeated:
			fault("Type is %.64q, as that of Route[%d]", route.Type, first)
		case strings.Contains(prefix, "*"):
			fault("Type is %.64q, want no * but at its end", route.Type)
		case len(prefix) > MaxIDBytes:
			fault("Type has %d bytes, a message's has at most %d", len(prefix), MaxIDBytes)
		}
		if route.Handler == nil {
			fault("Handler is nil")
		}
		seen[route.Type] = i
		if open {
			m.prefixes = append(m.prefixes, Route{Type: prefix, Handler: route.Handler})
		} else {
			m.exact[route.Type] = route.Handler
		}
		m.handled = append(m.handled, route.Type)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	slices.SortFunc(m.prefixes, func(a, b Route) int { return len(b.Type) - len(a.Type) })
	slices.Sort(m.handled)
	return m.deliver, nil
}

// mux is what Mux returns. Nothing in it changes.
type mux struct {
	exact    map[string]Handler
	prefixes []Route // the longest first
	handled  []string
}

func (m *mux) deliver(ctx context.Context, message Message) error {
	if handler, ok := m.exact[message.Type]; ok {
		return handler(ctx, message)
	}
	for _, route := range m.prefixes {
		if strings.HasPrefix(message.Type, route.Type) {
			return route.Handler(ctx, message)
		}
	}
	return retry.Permanent(&UnroutedError{Type: message.Type, Handled: m.handled})
}

// UnroutedError says that Mux has no Route for a message.
type UnroutedError struct {
	// Type is the message's.
	Type string
	// Handled are the types that there are routes for, in order. It is not to be
	// changed.
	Handled []string
}

// maxListedTypes bounds an UnroutedError's text, which is kept with the dead letter.
const maxListedTypes = 8

// Error names the message's type and some of those that are handled, quoted, and
// shortened where they are long.
func (e *UnroutedError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "delivery: no handler for type %.64q, there are handlers for", e.Type)
	for i, handled := range e.Handled[:min(len(e.Handled), maxListedTypes)] {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, " %.64q", handled)
	}
	if more := len(e.Handled) - maxListedTypes; more > 0 {
		fmt.Fprintf(&text, " and %d more", more)
	}
	return text.String()
}
