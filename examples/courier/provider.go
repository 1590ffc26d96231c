package courier

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Provider is an SMS provider with everything that real ones do to their
// callers: it hangs, says 429 with a Retry-After, does not know some numbers,
// refuses others, and goes down for a while. It is a real HTTP server, on a
// free port of this machine.
//
// What it accepts it writes into its ledger: the effects, which the job is
// judged by. It does not look at the Idempotency-Key that it is sent, so that a
// message delivered twice shows.
type Provider struct {
	// URL takes messages by POST at /messages, and numbers to be made known by
	// POST at /numbers.
	URL string

	ledger *Ledger
	server *http.Server
	busy   sync.WaitGroup // requests

	mu         sync.Mutex
	hung       map[string]bool
	registered map[string]bool // numbers that were unknown at first
	accepted   int
	downFrom   int // goes down when so many were accepted
	downUntil  time.Time
	window     time.Time // of the rate limit
	inWindow   int
}

const (
	latency       = 20 * time.Millisecond
	ratePerWindow = 300
	rateWindow    = 250 * time.Millisecond
	outage        = 1500 * time.Millisecond
)

// order is what the provider is sent.
type order struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// StartProvider starts a provider that keeps its ledger, and goes down once, after
// downFrom messages.
func StartProvider(ledger *Ledger, downFrom int) (*Provider, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Provider{
		URL:        "http://" + listener.Addr().String(),
		ledger:     ledger,
		hung:       map[string]bool{},
		registered: map[string]bool{},
		downFrom:   downFrom,
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /messages", p.take)
	routes.HandleFunc("POST /numbers", p.register)
	p.server = &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

// Close stops the server.
func (p *Provider) Close() error { return p.server.Close() }

// Quiesce waits until no message is being taken: those whose caller has died are
// either in the ledger then, or will never be.
func (p *Provider) Quiesce() { p.busy.Wait() }

// take takes one message.
func (p *Provider) take(w http.ResponseWriter, r *http.Request) {
	p.busy.Add(1)
	defer p.busy.Done()
	var sms order
	id := r.Header.Get("Idempotency-Key")
	if err := json.NewDecoder(r.Body).Decode(&sms); err != nil || id == "" {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(latency):
	case <-r.Context().Done():
		return
	}
	switch status := p.judge(id, sms.To); status {
	case http.StatusOK:
		w.WriteHeader(http.StatusAccepted)
	case statusHang:
		<-r.Context().Done() // until the caller gives up
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "slow down", status)
	default:
		http.Error(w, http.StatusText(status), status)
	}
}

// statusHang is not a status: no answer is given.
const statusHang = 0

// judge decides what becomes of a message, and when it is accepted writes down
// the effect.
func (p *Provider) judge(id, number string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.accepted >= p.downFrom && p.downUntil.IsZero():
		p.downUntil = now.Add(outage)
		return http.StatusServiceUnavailable
	case now.Before(p.downUntil):
		return http.StatusServiceUnavailable
	case isBlocked(number), isUnknown(number) && !p.registered[number]:
		return http.StatusNotFound
	case chance(id, "hang", 60) && !p.hung[id]:
		p.hung[id] = true
		return statusHang
	}
	if now.Sub(p.window) >= rateWindow {
		p.window, p.inWindow = now, 0
	}
	if p.inWindow++; p.inWindow > ratePerWindow {
		return http.StatusTooManyRequests
	}
	if err := p.ledger.Add(id); err != nil {
		return http.StatusInternalServerError
	}
	p.accepted++
	return http.StatusOK
}

// register makes a number known that was not.
func (p *Provider) register(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registered[r.FormValue("number")] = true
	w.WriteHeader(http.StatusNoContent)
}

// Numbers that end like this are not known yet; they can be registered.
func isUnknown(number string) bool { return strings.HasSuffix(number, "77") }

// Numbers that end like this will never be known.
func isBlocked(number string) bool { return strings.HasSuffix(number, "00") }

// chance is true for one in n IDs, the same ones each time.
func chance(id, of string, n uint32) bool {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(of + id))
	return hash.Sum32()%n == 0
}
