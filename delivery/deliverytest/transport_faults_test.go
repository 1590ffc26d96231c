package deliverytest_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

// brokenVariable is an environment variable. It makes the test program run a
// suite on a transport or store with the fault that it names.
const brokenVariable = "BARID_DELIVERYTEST_BROKEN"

func TestMain(m *testing.M) {
	if os.Getenv(brokenVariable) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

func TestTransport(t *testing.T) {
	deliverytest.TestTransport(t, func(tb testing.TB) deliverytest.Harness {
		harness := networkedHarness(tb)
		harness.DelayAccuracy = time.Minute // for the slowest machine; TestTransportInBubbles is exact
		return harness
	})
}

func TestTransportInBubbles(t *testing.T) { deliverytest.TestTransportInBubbles(t, networkedHarness) }

func BenchmarkTransport(b *testing.B) { deliverytest.BenchmarkTransport(b, networkedHarness) }

// broken is the memory transport with one fault.
type broken struct {
	*memory.Transport
	fault fault
}

// fault replaces the methods whose functions are not nil.
type fault struct {
	send      func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error
	sendAfter func(t *memory.Transport, ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error
	subscribe func(config *delivery.SubscribeConfig)
	receive   func(s delivery.Subscription, ctx context.Context) ([]delivery.Incoming, error)
	closed    func(s delivery.Subscription, held []delivery.Incoming) error
	ack, nack func(in delivery.Incoming) error
	stale     func(bool) bool
	priority  func(delivery.Priority) delivery.Priority
	depth     func(map[delivery.Priority]delivery.Depth)
	noPause   bool
	forgets   bool // that a message was delivered before
	open      func()
	raw       func([]byte) []byte
}

func (b *broken) Send(ctx context.Context, batch []delivery.Envelope) []error {
	if b.fault.send != nil {
		return b.fault.send(b.Transport, ctx, batch)
	}
	return b.Transport.Send(ctx, batch)
}

func (b *broken) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	if b.fault.sendAfter != nil {
		return b.fault.sendAfter(b.Transport, ctx, delay, batch)
	}
	return b.Transport.SendAfter(ctx, delay, batch)
}

func (b *broken) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	if b.fault.subscribe != nil {
		b.fault.subscribe(&config)
	}
	inner, err := b.Transport.Subscribe(ctx, config)
	if err != nil {
		return nil, err
	}
	return &brokenSubscription{Subscription: inner, fault: b.fault}, nil
}

func (b *broken) Depth(ctx context.Context) (map[delivery.Priority]delivery.Depth, error) {
	depths, err := b.Transport.Depth(ctx)
	if err == nil && b.fault.depth != nil {
		b.fault.depth(depths)
	}
	return depths, err
}

type brokenSubscription struct {
	delivery.Subscription
	fault fault
	held  []delivery.Incoming
}

func (s *brokenSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	receive := delivery.Subscription.Receive
	if s.fault.receive != nil {
		receive = s.fault.receive
	}
	incomings, err := receive(s.Subscription, ctx)
	s.held = append(s.held, incomings...)
	for i, incoming := range incomings {
		in := &brokenIncoming{Incoming: incoming, fault: s.fault}
		if incomings[i] = in; s.fault.forgets {
			incomings[i] = &forgetfulIncoming{in}
		}
	}
	return incomings, err
}

func (s *brokenSubscription) Close() error {
	if s.fault.closed != nil {
		return s.fault.closed(s.Subscription, s.held)
	}
	return s.Subscription.Close()
}

func (s *brokenSubscription) Pause(ctx context.Context) error {
	if s.fault.noPause {
		return nil
	}
	return s.Subscription.(delivery.Pauser).Pause(ctx)
}

func (s *brokenSubscription) Resume(ctx context.Context) error {
	return s.Subscription.(delivery.Pauser).Resume(ctx)
}

type brokenIncoming struct {
	delivery.Incoming
	fault fault
}

// forgetfulIncoming takes every delivery for the first one.
type forgetfulIncoming struct{ *brokenIncoming }

func (in *forgetfulIncoming) Redeliveries() (int, int) { return 0, 0 }

func (in *brokenIncoming) Ack() error {
	if in.fault.ack != nil {
		return in.fault.ack(in.Incoming)
	}
	return in.Incoming.Ack()
}

func (in *brokenIncoming) Nack() error {
	if in.fault.nack != nil {
		return in.fault.nack(in.Incoming)
	}
	return in.Incoming.Nack()
}

func (in *brokenIncoming) Stale() bool {
	stale := in.Incoming.(delivery.StaleTeller).Stale()
	if in.fault.stale != nil {
		return in.fault.stale(stale)
	}
	return stale
}

func (in *brokenIncoming) Priority() delivery.Priority {
	if in.fault.priority != nil {
		return in.fault.priority(in.Incoming.Priority())
	}
	return in.Incoming.Priority()
}

func (in *brokenIncoming) Envelope() (*delivery.Envelope, error) {
	envelope, err := in.Incoming.Envelope()
	if err == nil && envelope.Type == rawType && in.fault.raw != nil {
		return nil, &delivery.MalformedError{Raw: in.fault.raw(envelope.Body)}
	}
	return envelope, err
}

// changed sends each envelope with a change.
func changed(change func(*delivery.Envelope)) fault {
	return fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		batch = slices.Clone(batch)
		for i := range batch {
			change(&batch[i])
		}
		return t.Send(ctx, batch)
	}}
}

func ignoreSettled(settle func(delivery.Incoming) error) func(delivery.Incoming) error {
	return func(in delivery.Incoming) error {
		if err := settle(in); !errors.Is(err, delivery.ErrSettled) {
			return err
		}
		return nil
	}
}

// faults maps each fault to the subtests that have to notice it.
var faults = map[string]struct {
	fault    fault
	subtests []string
}{
	"loses a header":          {changed(func(e *delivery.Envelope) { e.Headers = nil }), []string{"KeepsEveryField"}},
	"rounds times":            {changed(func(e *delivery.Envelope) { e.CreatedAt = e.CreatedAt.Truncate(time.Microsecond) }), []string{"KeepsEveryField"}},
	"forgets the history":     {changed(func(e *delivery.Envelope) { e.History = nil }), []string{"KeepsEveryField", "NackRedelivers"}},
	"forgets the attempt":     {changed(func(e *delivery.Envelope) { e.Attempt = 0 }), []string{"KeepsEveryField"}},
	"forgets the generation":  {changed(func(e *delivery.Envelope) { e.Generation = 0 }), []string{"KeepsEveryField"}},
	"cuts large bodies":       {changed(func(e *delivery.Envelope) { e.Body = e.Body[:min(len(e.Body), 1<<20)] }), []string{"KeepsBodies"}},
	"forgets the crashes":     {changed(func(e *delivery.Envelope) { e.Crashes = 0 }), []string{"KeepsEveryField"}},
	"forgets redeliveries":    {fault{forgets: true}, []string{"NackRedelivers"}},
	"mixes up priorities":     {changed(func(e *delivery.Envelope) { e.Priority = delivery.Normal }), []string{"KeepsEveryField"}},
	"misreports the priority": {fault{priority: func(delivery.Priority) delivery.Priority { return delivery.Normal }}, []string{"KeepsEveryField"}},
	"loses some": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		if len(batch) > 0 && batch[0].ID > "m000100" && batch[0].ID < "m000105" {
			return nil
		}
		return t.Send(ctx, batch)
	}}, []string{"ManyPublishersAndConsumers", "CancelledReceivesLoseNothing"}},
	"sends twice": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		t.Send(ctx, batch)
		return t.Send(ctx, batch)
	}}, []string{"KeepsBatches", "ManyPublishersAndConsumers", "ReopenAgainAndAgain"}},
	"reverses batches": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		batch = slices.Clone(batch)
		slices.Reverse(batch)
		return t.Send(ctx, batch)
	}}, []string{"KeepsOrder"}},
	"tells one error for all": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		if errs := t.Send(ctx, batch); errs != nil {
			return []error{errors.Join(errs...)}
		}
		return nil
	}}, []string{"TellsErrorsPerEnvelope", "Deadlines"}},
	"sends though the context ended": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		return t.Send(context.WithoutCancel(ctx), batch)
	}}, []string{"Deadlines"}},
	"accepts after Close": {fault{send: func(t *memory.Transport, ctx context.Context, batch []delivery.Envelope) []error {
		errs := t.Send(ctx, batch)
		if errs != nil && errors.Is(errs[0], delivery.ErrClosed) {
			return nil
		}
		return errs
	}}, []string{"AfterClose", "ConcurrentClose"}},
	"hands over low ones first": {fault{receive: func(s delivery.Subscription, ctx context.Context) ([]delivery.Incoming, error) {
		incomings, err := s.Receive(ctx)
		slices.SortStableFunc(incomings, func(a, b delivery.Incoming) int { return int(a.Priority()) - int(b.Priority()) })
		return incomings, err
	}}, []string{"HigherPriorityFirst"}},
	"ignores the deadline of Receive": {fault{receive: func(s delivery.Subscription, ctx context.Context) ([]delivery.Incoming, error) {
		return s.Receive(context.WithoutCancel(ctx))
	}}, []string{"Deadlines"}},
	"returns nothing from Receive": {fault{receive: func(s delivery.Subscription, ctx context.Context) ([]delivery.Incoming, error) {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		incomings, err := s.Receive(short)
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, nil
		}
		return incomings, err
	}}, []string{"Deadlines"}},
	"prefetches one more":  {fault{subscribe: func(c *delivery.SubscribeConfig) { c.Prefetch++ }}, []string{"PrefetchIsExact"}},
	"prefetches one less":  {fault{subscribe: func(c *delivery.SubscribeConfig) { c.Prefetch-- }}, []string{"PrefetchIsExact"}},
	"never acks":           {fault{ack: func(delivery.Incoming) error { return nil }}, []string{"CloseOfSubscriptionRedelivers", "SettlesOnce", "ReopenAgainAndAgain"}},
	"acks twice":           {fault{ack: ignoreSettled(delivery.Incoming.Ack)}, []string{"SettlesOnce", "SettlesOnceAmongMany", "AfterClose"}},
	"nacks twice":          {fault{nack: ignoreSettled(delivery.Incoming.Nack)}, []string{"SettlesOnce"}},
	"loses what is nacked": {fault{nack: delivery.Incoming.Ack}, []string{"NackRedelivers", "SettlesOnceAmongMany", "IsolatesReceipts"}},
	"loses what is in hand": {fault{closed: func(s delivery.Subscription, held []delivery.Incoming) error {
		for _, incoming := range held {
			incoming.Ack() //nolint:errcheck // some are settled
		}
		return s.Close()
	}}, []string{"CloseOfSubscriptionRedelivers"}},
	"comes early": {fault{sendAfter: func(t *memory.Transport, ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
		return t.SendAfter(ctx, delay/10, batch)
	}}, []string{"Delays", "ManyDelays", "DelaysOutliveTheSender"}},
	"comes late": {fault{sendAfter: func(t *memory.Transport, ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
		return t.SendAfter(ctx, delay+3*time.Second, batch)
	}}, []string{"Delays", "ManyDelays", "DelaysOutliveTheSender"}},
	"miscounts":             {fault{depth: func(d map[delivery.Priority]delivery.Depth) { d[delivery.Low] = delivery.Depth{Messages: 1} }}, []string{"Depth"}},
	"is never stale":        {fault{stale: func(bool) bool { return false }}, []string{"Stale"}},
	"is always stale":       {fault{stale: func(bool) bool { return true }}, []string{"Stale"}},
	"does not pause":        {fault{noPause: true}, []string{"Pause"}},
	"leaves a goroutine":    {fault{open: func() { go func() { select {} }() }}, []string{"LeavesNoGoroutines"}},
	"takes raw for its own": {fault{raw: func([]byte) []byte { return []byte("something else") }}, []string{"Malformed"}},
}

// TestBroken runs the suite on the broken transport that the environment names,
// and has to fail then. Otherwise it does nothing.
func TestBroken(t *testing.T) {
	row, ok := faults[os.Getenv(brokenVariable)]
	if !ok {
		return
	}
	suite := deliverytest.TestTransportInBubbles
	if row.fault.open != nil {
		suite = deliverytest.TestTransport // in a bubble, goroutines that are left panic
	}
	suite(t, func(testing.TB) deliverytest.Harness {
		first := memory.New(memory.Config{})
		return deliverytest.Harness{
			Open: func(testing.TB) delivery.Transport {
				if row.fault.open != nil {
					row.fault.open()
				}
				return &broken{first.Another(), row.fault}
			},
			SendRaw: func(tb testing.TB, priority delivery.Priority, body []byte) {
				raw := delivery.Envelope{Message: delivery.Message{Type: rawType, Priority: priority, Body: body}}
				if err := errors.Join(first.Send(tb.Context(), []delivery.Envelope{raw})...); err != nil {
					tb.Fatal(err)
				}
			},
			Patience: 4 * time.Second,
		}
	})
}

// TestSuiteNoticesFaults checks that each fault makes the subtests fail that
// should notice it.
func TestSuiteNoticesFaults(t *testing.T) {
	subtests := map[string][]string{}
	for name, row := range faults {
		subtests[name] = row.subtests
	}
	noticesFaults(t, "TestBroken", subtests)
}

// noticesFaults runs the subtests that should notice a fault, of a test that
// reads the fault's name from the environment.
func noticesFaults(t *testing.T, test string, subtests map[string][]string) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	// Each fault has a process of its own, because a subtest that fails makes its
	// parents fail. A few of them wait for a second or more.
	type run struct {
		out []byte
		err error
	}
	runs := map[string]*run{}
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0)+2)
	for name, names := range subtests {
		run := new(run)
		runs[name] = run
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			pattern := "^" + test + "$/^(" + strings.Join(names, "|") + ")$"
			command := exec.Command(program, "-test.run="+pattern, "-test.timeout=5m")
			command.Env = append(os.Environ(), brokenVariable+"="+name)
			run.out, run.err = command.CombinedOutput()
		})
	}
	all.Wait()
	for name, names := range subtests {
		for _, subtest := range names {
			t.Run(name+"/"+subtest, func(t *testing.T) {
				var failed *exec.ExitError
				require.ErrorAs(t, runs[name].err, &failed, "the suite passed")
				assert.Contains(t, string(runs[name].out), "--- FAIL: "+test+"/"+subtest+" ")
				assert.NotContains(t, string(runs[name].out), "panic:")
			})
		}
	}
}

func TestBenchmarksRun(t *testing.T) {
	const name = "test.benchtime"
	before := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, "110x"))
	defer func() { require.NoError(t, flag.Set(name, before)) }()
	result := testing.Benchmark(BenchmarkTransport)
	assert.Positive(t, result.N)
	result = testing.Benchmark(BenchmarkStore)
	assert.Positive(t, result.N)
}
