package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// Transport is a delivery.Transport on RabbitMQ, made by Open. It is safe for
// concurrent use.
type Transport struct {
	config      Config
	connections *Connections
	topology    declaredTopology
	levels      [4]Level // by priority, the lowest first, each with at least one shard
	sources     []source // where messages are fetched
	// formerLadder are the queues of the delay ladder that the name had before it
	// shared one with others, if they are still there.
	formerLadder []string
	headers      atomic.Int64 // bound of a message's headers
	maxBody      atomic.Int64 // bound of a body: ours, or the broker's if that is lower

	unroutable [2]atomic.Int64 // messages that found no queue, as last seen, and those that are lost

	publishConns publishConns
	mender       mender
	refusals     refusals
	controlConn  controlConn
	publishings  sync.Pool // of *amqp.Publishing, with an empty table

	life      context.Context // ends with Close; bounds what outlives a call
	end       context.CancelFunc
	working   sync.WaitGroup // the goroutines of publishConns
	closing   atomic.Bool
	sends     atomic.Int64  // how many are under way
	idle      chan struct{} // capacity 1: closing, and no send is under way any longer
	closeOnce sync.Once

	mu            sync.Mutex
	subscriptions map[*subscription]struct{} // nil once closing
}

var (
	_ delivery.Transport    = (*Transport)(nil)
	_ delivery.Delayer      = (*Transport)(nil)
	_ delivery.Depther      = (*Transport)(nil)
	_ delivery.Pinger       = (*Transport)(nil)
	_ delivery.Namer        = (*Transport)(nil)
	_ delivery.DeadLetterer = (*Transport)(nil)
	_ delivery.Subscription = (*subscription)(nil)
	_ delivery.Pauser       = (*subscription)(nil)
)

// openTimeout bounds Open when its context has no deadline.
const openTimeout = 30 * time.Second

// Open connects to a broker, and declares or checks the topology. It tries again
// until ctx ends, or for 30 s if ctx has no deadline. Where the cause is
// permanent, it fails at once. The error is ErrConfig, a *ConnectError or a
// *TopologyError, and never holds the password.
//
// It takes about a dozen round trips, however large the topology is, and fewer over
// Connections that are there. Beside Config.DialTimeout, the declarations have 30 s.
//
// ctx bounds Open alone. End the Transport with Close.
func Open(ctx context.Context, config Config) (*Transport, error) {
	config = config.withDefaults()
	connections, err := config.connections()
	if err := errors.Join(err, config.validate()); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	t := newTransport(config, connections)
	control, err := t.connect(ctx, connections.control, func(conn *connection) error {
		return conn.within(ctx, topologyTimeout, func() error { return t.prepare(conn) })
	})
	if err != nil {
		return nil, err
	}
	publish, err := connections.publish[0].join(ctx, newReconnectDelay(connections.config.MaxReconnectDelay), false)
	if err != nil {
		control.leave()
		return nil, err
	}
	t.controlConn.conn = control
	for _, level := range t.topology.Levels {
		level.Shards = level.shards()
		t.levels[level.Priority-delivery.Low] = level
	}
	t.life, t.end = context.WithCancel(context.Background())
	for _, shared := range connections.publish {
		p := newPublishConn(shared)
		t.publishConns.all = append(t.publishConns.all, p)
		first := publish
		publish = nil
		t.working.Go(func() { p.run(t.life, t, first) })
	}
	return t, nil
}

func newTransport(config Config, connections *Connections) *Transport {
	config.Logger = quietLogger(config.Logger, connections.config.MaxReconnectDelay)
	t := &Transport{
		config:      config,
		connections: connections,
		topology: declaredTopology{
			passive:  config.Passive,
			logger:   config.Logger,
			renewing: make(chan struct{}, 1),
		},
		controlConn:   controlConn{shared: connections.control, looking: make(chan struct{}, 1)},
		idle:          make(chan struct{}, 1),
		subscriptions: make(map[*subscription]struct{}),
	}
	t.publishings.New = func() any { return &amqp.Publishing{Headers: make(amqp.Table)} }
	t.maxBody.Store(int64(config.MaxBodyBytes))
	t.headers.Store(maxHeaderBytes)
	return t
}

// prepare makes the topology for the broker at the other end of conn, declares or
// checks it, and finds out where messages are to be fetched.
func (t *Transport) prepare(conn *connection) error {
	if err := conn.checkNegotiated(minChannels); err != nil {
		return err
	}
	unsplit := t.config.Topology(t.config.Name, conn.version)
	t.topology.Topology = unsplit.Sharded(t.config.Shards)
	if err := t.topology.validate(); err != nil {
		return err
	}
	if err := t.topology.establish(conn); err != nil {
		return err
	}
	t.sources = t.topology.sources()
	if t.config.Passive {
		return nil
	}
	var err error
	if t.formerLadder, err = formerLadder(conn, t.config.Name); err != nil {
		return err
	}
	left, err := leftovers(conn, unsplit, t.config.Shards, t.config.Logger)
	t.sources = append(t.sources, left...)
	return err
}

// connect joins a connection and prepares what the transport needs there. It does both
// again when the connection is lost meanwhile.
func (t *Transport) connect(ctx context.Context, shared *sharedConn, prepare func(*connection) error) (*connection, error) {
	delay := newReconnectDelay(t.connections.config.MaxReconnectDelay)
	for {
		conn, err := shared.join(ctx, delay, false)
		if err != nil {
			return nil, err
		}
		err = prepare(conn)
		if err == nil {
			return conn, nil
		}
		conn.leave()
		fault := &ConnectError{Address: conn.address, Permanent: permanent(err), Cause: err}
		var named *TopologyError
		if fault.Permanent && (errors.As(err, &named) || !t.topology.oneByOne.Load()) { // else the next try finds out which part it is
			return nil, err
		}
		retry.Wait(ctx.Done(), delay.next(false))
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

// Topology is what the transport has declared or checked.
func (t *Transport) Topology() Topology {
	if t == nil {
		return Topology{}
	}
	return t.topology.Topology
}

// Send implements delivery.Transport. What was unconfirmed when a connection was
// lost is sent again over the next one, with the same message ID, for as long as
// ctx lasts.
func (t *Transport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	return t.send(ctx, len(batch), func(i int, p *amqp.Publishing) (Route, error) {
		if err := t.limits().encode(&batch[i], time.Time{}, p); err != nil {
			return Route{}, err
		}
		level := t.level(batch[i].Priority)
		p.Priority = level.MessagePriority
		return level.shardOf(batch[i].Recipient).Route, nil
	})
}

// SendAfter implements delivery.Delayer. Whole seconds of the delay pass in the
// broker's delay ladder. The rest, less than a second, passes in the process that
// fetches the message. The longest delay is 2^20-1 seconds, 12 days; a longer one
// is cut to that.
//
// The message is due by this machine's clock. If the clock of the process that
// fetches it differs, the last part is longer or shorter by a second at most.
func (t *Transport) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	if delay <= 0 {
		return t.Send(ctx, batch)
	}
	due := time.Now().Add(delay)
	return t.send(ctx, len(batch), func(i int, p *amqp.Publishing) (Route, error) {
		// The time that a message waits for a connection is part of its delay.
		left := time.Until(due)
		if longest := t.topology.longestDelay(); left > longest {
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

// send sends so many messages, each of which encode writes and routes.
func (t *Transport) send(ctx context.Context, count int, encode func(int, *amqp.Publishing) (Route, error)) []error {
	if count == 0 {
		return nil
	}
	s := send{transport: t, count: count, encode: encode}
	if !t.enter() {
		for i := range count {
			s.fail(i, delivery.ErrClosed)
		}
		return s.errs
	}
	defer t.leave()
	return s.run(ctx)
}

// enter counts a send for Close to wait for. It returns false when the transport
// is closed.
func (t *Transport) enter() bool {
	if t == nil || t.life == nil {
		return false
	}
	t.sends.Add(1)
	if t.closing.Load() {
		t.leave()
		return false
	}
	return true
}

func (t *Transport) leave() {
	if t.sends.Add(-1) == 0 && t.closing.Load() {
		select {
		case t.idle <- struct{}{}:
		default:
		}
	}
}

// level is where messages of a priority go. An unknown priority counts as normal.
func (t *Transport) level(p delivery.Priority) *Level {
	if !p.Valid() {
		p = delivery.Normal
	}
	return &t.levels[p-delivery.Low]
}

func (t *Transport) limits() limits {
	return limits{headers: int(t.headers.Load()), body: int(t.maxBody.Load())}
}

// logLost tells that a channel was lost, or can't be had.
func (t *Transport) logLost(ctx context.Context, purpose string, cause error, retryIn time.Duration) {
	t.config.Logger.Log(ctx, levelOf(cause), "broker channel lost", "purpose", purpose, "retry_in", retryIn, "error", cause)
}

// Close implements delivery.Transport. It ends all subscriptions, waits a few
// seconds for the confirms of what was sent, and closes the connections, unless others
// use them.
func (t *Transport) Close() error {
	if t == nil || t.life == nil {
		return nil
	}
	t.closeOnce.Do(func() {
		t.closing.Store(true)
		t.publishConns.changed.notify()
		t.mu.Lock()
		subscriptions := t.subscriptions
		t.subscriptions = nil
		t.mu.Unlock()
		var ending sync.WaitGroup
		for s := range subscriptions {
			ending.Go(s.end)
		}
		if t.sends.Load() > 0 {
			retry.Wait(t.idle, closeTimeout)
		}
		t.end()
		t.working.Wait()
		t.controlConn.close()
		ending.Wait()
	})
	return nil
}
