package rabbitmq

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigDefaults(t *testing.T) {
	c := Config{URL: "amqp://localhost", Name: "orders"}.withDefaults()
	require.NoError(t, c.validate())
	connections, err := c.connections()
	require.NoError(t, err)
	assert.Equal(t, 1, c.Shards)
	assert.Equal(t, 512, c.Window)
	assert.Equal(t, 16<<20, c.MaxBodyBytes)
	assert.NotNil(t, c.Topology)
	assert.Equal(t, "orders", connections.config.Name)
	assert.Equal(t, 1, connections.config.PublishConnections)
	assert.Equal(t, 10*time.Second, connections.config.DialTimeout)
	assert.Equal(t, 10*time.Second, connections.config.WriteTimeout)
	assert.Equal(t, 10*time.Second, connections.config.Heartbeat)
	assert.Equal(t, 30*time.Second, connections.config.MaxReconnectDelay)
}

func TestConfigFaults(t *testing.T) {
	_, err := Open(context.Background(), Config{})
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "URL is empty")
	require.ErrorContains(t, err, "Name is empty")
	for want, change := range map[string]func(*Config){
		"Name has 201 bytes, want at most 200":   func(c *Config) { c.Name = strings.Repeat("n", 201) },
		"amq.":                                   func(c *Config) { c.Name = "amq.orders" },
		"want UTF-8":                             func(c *Config) { c.Name = "\xff" },
		"Shards is 65, want 1 to 64":             func(c *Config) { c.Shards = 65 },
		"Shards is -1":                           func(c *Config) { c.Shards = -1 },
		"PublishConnections is 17, want 1 to 16": func(c *Config) { c.PublishConnections = 17 },
		"PublishConnections is -1":               func(c *Config) { c.PublishConnections = -1 },
		"Window is -1":                           func(c *Config) { c.Window = -1 },
		"MaxBodyBytes is":                        func(c *Config) { c.MaxBodyBytes = 129 << 20 },
		"DialTimeout is":                         func(c *Config) { c.DialTimeout = -1 },
		"WriteTimeout is":                        func(c *Config) { c.WriteTimeout = -1 },
		"MaxReconnectDelay is":                   func(c *Config) { c.MaxReconnectDelay = -1 },
		"Heartbeat is 1ms, want whole seconds":   func(c *Config) { c.Heartbeat = time.Millisecond },
		"Heartbeat is 1.5s, want whole seconds":  func(c *Config) { c.Heartbeat = 1500 * time.Millisecond },
		"1s to 18h12m15s":                        func(c *Config) { c.Heartbeat = 65536 * time.Second },
		`Name is "orders\n"`:                     func(c *Config) { c.Name = "orders\n" },
		"TLS is set":                             func(c *Config) { c.TLS = &tls.Config{} },
		"auth_mechanism":                         func(c *Config) { c.URL += "?auth_mechanism=magic" },
		"can't be parsed":                        func(c *Config) { c.URL = "http://localhost" },
		"of user, password and vhost":            func(c *Config) { c.URL += "team@home" },
		"has several hosts":                      func(c *Config) { c.URL = "amqp://guest:secret@one,two/" },
		`Nodes[1] is "two", want host:port`:      func(c *Config) { c.Nodes = []string{"one:1", "two"} },
		`Nodes[0] is ":5672"`:                    func(c *Config) { c.Nodes = []string{":5672"} },
		`Nodes[0] is "one:65536"`:                func(c *Config) { c.Nodes = []string{"one:65536"} },
		"URL is set, and so is Connections":      func(c *Config) { c.Connections = newConnections(ConnectionsConfig{}.withDefaults()) },
		"Heartbeat is set, and so is":            func(c *Config) { c.Connections, c.Heartbeat = newConnections(ConnectionsConfig{}.withDefaults()), 1 },
		"not made by NewConnections":             func(c *Config) { c.Connections = &Connections{} },
	} {
		t.Run(want, func(t *testing.T) {
			c := Config{URL: "amqp://guest:secret@localhost/", Name: "orders"}
			change(&c)
			_, err := Open(context.Background(), c)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestURLFaultsKeepThePassword(t *testing.T) {
	for _, url := range []string{
		"amqp://guest:sec/ret@localhost/",
		"amqp://guest:12/ret@localhost/",
		"amqp://guest:12?ret@localhost/",
		"amqp://guest:12#ret@localhost/",
		"amqp://guest:sec%zzret@localhost/",
		"amqp://guest:sec ret@localhost/",
		"amqp://guest:sec\x7fret@localhost/",
		"amqp://guest:secret@localhost:port/",
		"amqp://guest:secret@localhost/?heartbeat=secret",
		"secret",
		"://guest:secret@localhost",
	} {
		t.Run(url, func(t *testing.T) {
			_, err := Open(context.Background(), Config{URL: url, Name: "orders"})
			require.ErrorIs(t, err, ErrConfig)
			for _, part := range []string{"sec", "ret@", "12"} {
				assert.NotContains(t, err.Error(), part)
			}
		})
	}
}
