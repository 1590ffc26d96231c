package faults

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// network is a proxy between the pipeline and a server, in which faults can be
// injected.
type network struct {
	r     *rowTest
	proxy *toxiproxy.Proxy
	url   string // the server's, by way of this network
}

// network makes one to the server of the URL.
func (r *rowTest) network(serverURL string) *network {
	r.Helper()
	parsed, err := url.Parse(serverURL)
	require.NoError(r, err)
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n := &network{r: r, proxy: toxiproxy.NewProxy(api, "network", "127.0.0.1:0", parsed.Host)}
	require.NoError(r, n.proxy.Start())
	parsed.Host = n.proxy.Listen
	n.url = parsed.String()
	r.atEnd(func() {
		n.restore()
		n.proxy.Stop()
	})
	return n
}

type attributes map[string]any

// add adds a toxic, upstream (to the server) or downstream.
func (n *network) add(kind, stream string, toxicity float64, with attributes) {
	n.r.Helper()
	text, err := json.Marshal(map[string]any{
		"type": kind, "stream": stream, "toxicity": toxicity, "attributes": with,
	})
	require.NoError(n.r, err)
	_, err = n.proxy.Toxics.AddToxicJson(strings.NewReader(string(text)))
	require.NoError(n.r, err)
}

// stall lets nothing through, with all connections open.
func (n *network) stall() {
	n.r.Helper()
	// A rate of 0 holds what comes instead of discarding it.
	n.add("bandwidth", "upstream", 1, attributes{"rate": 0})
	n.add("bandwidth", "downstream", 1, attributes{"rate": 0})
}

// restore removes all toxics.
func (n *network) restore() { n.proxy.Toxics.ResetToxics(context.Background()) }

// down ends all connections and takes no new ones.
func (n *network) down() { n.proxy.Stop() }

// up takes connections again.
func (n *network) up() {
	n.r.Helper()
	require.NoError(n.r, n.proxy.Start())
}

// redirect ends all connections and forwards new ones to another server.
func (n *network) redirect(addr string) {
	n.r.Helper()
	n.proxy.Stop()
	n.proxy.Lock()
	n.proxy.Upstream = addr
	n.proxy.Unlock()
	n.up()
}
