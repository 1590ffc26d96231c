package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPermanent(t *testing.T) {
	server := func(code int, reason string) error { return &amqp.Error{Code: code, Reason: reason, Server: true} }
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                {nil, false},
		"other":              {errors.New("other"), false},
		"403":                {server(403, "ACCESS_REFUSED"), true},
		"403 of the client":  {amqp.ErrCredentials, false},
		"no mechanism":       {amqp.ErrSASL, true},
		"no more channels":   {amqp.ErrChannelMax, true},
		"404":                {server(404, "NOT_FOUND"), true},
		"406":                {newTopologyError("queue", "q", server(406, "PRECONDITION_FAILED")), true},
		"320":                {server(320, "CONNECTION_FORCED"), false},
		"541":                {server(541, "INTERNAL_ERROR"), false},
		"530 missing vhost":  {server(530, "NOT_ALLOWED - vhost x not found"), true},
		"530 refused vhost":  {server(530, "NOT_ALLOWED - access to vhost 'x' refused for user 'y'"), true},
		"530 vhost down":     {server(530, "NOT_ALLOWED - vhost 'x' is down"), false},
		"refused connection": {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, false},
		"TLS alert":          {&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, true},
		"certificate":        {&tls.CertificateVerificationError{}, true},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, permanent(test.err)) })
	}
}

func TestErrorsTellTheirCause(t *testing.T) {
	cause := errors.New("cause")
	err := error(&ConnectError{Address: "host:1", Cause: cause})
	assert.Equal(t, "rabbitmq: no connection to host:1: cause", err.Error())
	require.ErrorIs(t, err, cause)
	err = &ConnectError{Address: "host:1", Cause: cause, Context: context.Canceled}
	assert.Equal(t, "rabbitmq: no connection to host:1: context canceled, the last cause: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, &TopologyError{Cause: cause}, cause)
}

func TestTopologyErrorNamesTheArgument(t *testing.T) {
	mismatch := &amqp.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' " +
		"in vhost '/': received 'quorum' but current is 'classic'"}
	fault := newTopologyError("queue", "q", mismatch)
	assert.Equal(t, "x-queue-type", fault.Argument)
	require.ErrorContains(t, fault, `queue "q" exists with another x-queue-type`)
	assert.Empty(t, newTopologyError("queue", "q", errors.New("gone")).Argument)

	// A queue of an older broker keeps its missing limit, any other limit is a
	// difference.
	queue := Quorum("q", Version{Major: 4}).Queues[0]
	limit := func(current string) *TopologyError {
		return newTopologyError("queue", "q", &amqp.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - inequivalent arg " +
			"'x-delivery-limit' for queue 'q' in vhost '/': received the value '-1' of type 'long' but current is " + current})
	}
	assert.True(t, queue.leaveLimit(limit("none")))
	assert.False(t, queue.leaveLimit(limit("the value '5' of type 'long'")))
	assert.False(t, queue.leaveLimit(fault))
}
