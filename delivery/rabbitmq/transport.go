package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// Transport is a delivery.Transport on RabbitMQ, made by Open. Any number of
// goroutines may use one.
type Transport struct {
	config   Config
	dialer   *dialer
	topology Topology
	levels   [4]Level     // by priority, the lowest first, each with a shard at least
	sources  []source     // what is fetched from
	headers  int          // bound of a message's headers
	maxBody  atomic.Int64 // bound of a body: ours, or the broker's if that is lower

	lanes        []*lane
	lanesChanged bell
	publishings  sync.Pool // of *amqp.Publishing, with an empty table

	// The topology is declared again after an outage, by who comes first.
	mending chan struct{} // capacity 1: who has put something in declares
	stale   atomic.Bool
	missing atomic.Pointer[map[string]bool] // exchanges that we know are gone

	control control

	life      context.Context // ends with Close; what outlives a call is bound to it
	end       context.CancelFunc
	working   sync.WaitGroup // lanes
	closing   atomic.Bool
	shipments atomic.Int64
	idle      chan struct{} // capacity 1: the last shipment is done
	closeOnce sync.Once

	mu            sync.Mutex
	subscriptions map[*Subscription]struct{}
}

var (
	_ delivery.Transport    = (*Transport)(nil)
	_ delivery.Delayer      = (*Transport)(nil)
	_ delivery.Depther      = (*Transport)(nil)
	_ delivery.Pinger       = (*Transport)(nil)
	_ delivery.Namer        = (*Transport)(nil)
	_ delivery.DeadLetterer = (*Transport)(nil)
	_ delivery.Subscription = (*Subscription)(nil)
	_ delivery.Pauser       = (*Subscription)(nil)
)

// openTimeout bounds Open when its context has no deadline.
const openTimeout = 30 * time.Second

// Open connects to a broker and declares, or checks, the topology. It tries
// again until ctx ends, or for 30 s if ctx has no deadline, except when the
// cause is permanent: then it fails at once. The error is ErrConfig, a
// *ConnectError, or a *TopologyError; it never holds the password.
//
// ctx bounds Open alone. End the Transport with Close.
func Open(ctx context.Context, config Config) (*Transport, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	uri, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	t := &Transport{
		config:        config,
		dialer:        &dialer{config: config, uri: uri, address: address(uri)},
		idle:          make(chan struct{}, 1),
		mending:       make(chan struct{}, 1),
		subscriptions: make(map[*Subscription]struct{}),
	}
	t.publishings.New = func() any { return &amqp.Publishing{Headers: make(amqp.Table)} }
	t.control.turn = make(chan struct{}, 1)
	t.maxBody.Store(int64(config.MaxBodyBytes))
	link, err := t.connect(ctx, "publish", func(link *link) error {
		plain := config.Topology(config.Name, link.version)
		t.topology = plain.Sharded(config.Shards)
		if err := t.topology.validate(); err != nil {
			return err
		}
		if err := t.topology.establish(ctx, link, config); err != nil {
			return err
		}
		t.sources = t.topology.sources()
		if config.Passive {
			return nil
		}
		return link.within(ctx, config.DialTimeout, func() error {
			left, err := leftovers(link, plain, config.Shards)
			for _, source := range left {
				config.Logger.Warn("rabbitmq_leftover_queue", "queue", source.queue)
			}
			t.sources = append(t.sources, left...)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	for _, level := range t.topology.Levels {
		level.Shards = level.shards()
		t.levels[level.Priority-delivery.Low] = level
	}
	t.headers = min(maxHeaderBytes, link.conn.Config.FrameSize-frameBytes)
	if link.conn.Config.FrameSize == 0 {
		t.headers = maxHeaderBytes
	}
	t.life, t.end = context.WithCancel(context.Background())
	for i := range config.Lanes {
		lane := &lane{number: i}
		t.lanes = append(t.lanes, lane)
		first := link
		if i > 0 {
			first = nil
		}
		t.working.Go(func() { lane.run(t.life, t, first) })
	}
	return t, nil
}

// connect makes a link and prepares it, and does both again when the connection
// is lost meanwhile.
func (t *Transport) connect(ctx context.Context, purpose string, prepare func(*link) error) (*link, error) {
	pause := newPause(t.config.MaxReconnectDelay)
	for {
		link, err := t.dialer.connect(ctx, purpose, pause, false)
		if err != nil {
			return nil, err
		}
		err = prepare(link)
		if err == nil {
			return link, nil
		}
		link.close()
		fault := &ConnectError{Address: t.dialer.address, Permanent: permanent(err), Cause: err}
		if fault.Permanent || errors.Is(err, ErrConfig) {
			return nil, err
		}
		wait(ctx.Done(), pause.next(false))
		if fault.Context = ctx.Err(); fault.Context != nil {
			return nil, fault
		}
	}
}

// Name is Config.Name.
func (t *Transport) Name() string {
	if t == nil {
		return ""
	}
	return t.config.Name
}

// Topology is what the transport declared or checked.
func (t *Transport) Topology() Topology {
	if t == nil {
		return Topology{}
	}
	return t.topology
}

// Send implements delivery.Transport. What was in flight when a connection was
// lost is sent again over the next one, with the same message ID, for as long as
// ctx lasts.
func (t *Transport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	return t.ship(ctx, len(batch), func(i int, p *amqp.Publishing) (Route, error) {
		if err := t.limits().encode(&batch[i], time.Time{}, p); err != nil {
			return Route{}, err
		}
		level := t.level(batch[i].Priority)
		p.Priority = level.MessagePriority
		return level.shardOf(batch[i].Recipient).Route, nil
	})
}

// SendAfter implements delivery.Delayer. Whole seconds pass in the broker, in
// the ladder; the rest, less than a second, passes in the process that fetches
// the message. The longest delay is 2^20-1 seconds, 12 days.
//
// The message is due by this machine's clock. A clock that differs there makes
// the last part longer or shorter, by a second at most.
func (t *Transport) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	if delay <= 0 {
		return t.Send(ctx, batch)
	}
	due := time.Now().Add(delay)
	return t.ship(ctx, len(batch), func(i int, p *amqp.Publishing) (Route, error) {
		// What has waited for a connection has waited for its time as well.
		left := time.Until(due)
		if longest := t.topology.longest(); left > longest {
			if longest == 0 && left >= time.Second {
				return Route{}, fmt.Errorf("%w: the topology has no delay ladder", delivery.ErrUnsupported)
			}
			if longest > 0 {
				left, due = longest, time.Now().Add(longest)
			}
		}
		if err := t.limits().encode(&batch[i], due, p); err != nil {
			return Route{}, err
		}
		level := t.level(batch[i].Priority)
		route, inLadder := t.topology.delayed(max(left, 0), level.shardOf(batch[i].Recipient))
		if p.Priority = level.MessagePriority; inLadder {
			p.Priority = level.DelayedPriority
		}
		return route, nil
	})
}

func (t *Transport) ship(ctx context.Context, count int, encode func(int, *amqp.Publishing) (Route, error)) []error {
	if count == 0 {
		return nil
	}
	s := shipment{transport: t, count: count, encode: encode}
	if !t.enter() {
		for i := range count {
			s.fail(i, delivery.ErrClosed)
		}
		return s.errs
	}
	defer t.leave()
	return s.run(ctx)
}

// enter counts a shipment that Close has to wait for.
func (t *Transport) enter() bool {
	if t == nil || t.life == nil {
		return false
	}
	t.shipments.Add(1)
	if t.closing.Load() {
		t.leave()
		return false
	}
	return true
}

func (t *Transport) leave() {
	if t.shipments.Add(-1) == 0 && t.closing.Load() {
		select {
		case t.idle <- struct{}{}:
		default:
		}
	}
}

// usable returns a session to publish with, as soon as there is one.
func (t *Transport) usable(ctx context.Context) (*session, error) {
	for {
		changed := t.lanesChanged.listen()
		if s := t.pick(); s != nil {
			return s, nil
		}
		if t.closing.Load() {
			return nil, delivery.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pick chooses among the sessions that can be used now: the first that has half
// of its window free, or else the emptiest. What goes over one connection goes
// in fewer, larger writes; the next one takes over when there is more to do, or
// when a connection stalls.
func (t *Transport) pick() *session {
	var emptiest *session
	for _, lane := range t.lanes {
		s := lane.session.Load()
		if s == nil || s.over() || s.blocked.Load() {
			continue
		}
		if len(s.slots) <= cap(s.slots)/2 {
			return s
		}
		if emptiest == nil || len(s.slots) < len(emptiest.slots) {
			emptiest = s
		}
	}
	return emptiest
}

// blocked says whether the broker holds back any of our publishing connections.
func (t *Transport) blocked() bool {
	for _, lane := range t.lanes {
		if s := lane.session.Load(); s != nil && s.blocked.Load() {
			return true
		}
	}
	return false
}

func (t *Transport) level(p delivery.Priority) *Level {
	if !p.Valid() {
		p = delivery.Normal
	}
	return &t.levels[p-delivery.Low]
}

func (t *Transport) limits() limits { return limits{headers: t.headers, body: int(t.maxBody.Load())} }

// lacks says whether an exchange is known to be gone.
func (t *Transport) lacks(exchange string) bool {
	missing := t.missing.Load()
	return missing != nil && (*missing)[exchange]
}

// mend declares the topology again after an outage, in which the broker may have
// lost it, or finds out what can't be mended. Only a lost connection is an
// error, and ctx's end.
func (t *Transport) mend(ctx context.Context, link *link) error {
	select {
	case t.mending <- struct{}{}:
		defer func() { <-t.mending }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !t.stale.Load() {
		return nil
	}
	if !t.config.Passive {
		err := t.topology.establish(ctx, link, t.config)
		var fault *TopologyError
		switch {
		case err == nil:
			t.missing.Store(nil)
			t.stale.Store(false)
			return nil
		case errors.As(err, &fault) && permanent(err):
			t.config.Logger.Error("rabbitmq_topology", "error", err)
		default:
			return err
		}
	}
	return link.within(ctx, t.config.DialTimeout, func() error {
		names, err := t.topology.missing(link)
		if err != nil {
			return err
		}
		t.missing.Store(nil)
		if names != nil {
			t.missing.Store(&names)
			t.config.Logger.Error("rabbitmq_exchanges_missing", "exchanges", len(names))
		}
		t.stale.Store(false)
		return nil
	})
}

// logLost tells of the end of a connection.
func (t *Transport) logLost(ctx context.Context, purpose string, cause error, delay time.Duration) {
	level := slog.LevelWarn
	if permanent(cause) {
		level = slog.LevelError
	}
	t.config.Logger.Log(ctx, level, "rabbitmq_disconnected", "purpose", purpose,
		"address", t.dialer.address, "retry_in", delay, "error", cause)
}

// Close implements delivery.Transport. It ends all subscriptions, waits a few
// seconds for the confirms of what was sent, and closes the connections.
func (t *Transport) Close() error {
	if t == nil || t.life == nil {
		return nil
	}
	t.closeOnce.Do(func() {
		t.closing.Store(true)
		t.lanesChanged.ring()
		t.mu.Lock()
		subscriptions := t.subscriptions
		t.subscriptions = nil
		t.mu.Unlock()
		var ending sync.WaitGroup
		for s := range subscriptions {
			ending.Go(s.end)
		}
		if t.shipments.Load() > 0 {
			wait(t.idle, closeTimeout)
		}
		t.end()
		t.working.Wait()
		t.control.close()
		ending.Wait()
	})
	return nil
}
