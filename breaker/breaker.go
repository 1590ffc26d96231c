package breaker

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker"
)

// Breaker is one circuit breaker; see the package comment for what it does.
// Make it with New. A nil or zero Breaker allows nothing.
type Breaker struct {
	config Config
	key    string
	fault  error
	made   bool // by New or a Set

	// mu is held around every use of gate. So its callbacks, which it runs under its
	// own mutex (tripped, changed), find the rest of the state consistent with it,
	// and a permit has the generation that gate gave it in. mu is never held while
	// an observer runs.
	mu         sync.Mutex
	gate       *gobreaker.TwoStepCircuitBreaker
	state      State         // gate's, as of its last change
	generation uint64        // counts gate's changes of state
	window     window        // outcomes of this generation, while closed
	until      time.Time     // while open or forced; zero if that has no end
	timer      *time.Timer   // has the breaker looked at then
	forced     bool          // the state is an operator's
	held       bool          // HoldProbes
	wanted     bool          // Status.Wanted
	imposing   bool          // impose is at work on gate
	wake       chan struct{} // closed at the next change; nil if nobody waits
	out        int           // permits that are out
	free       *slot         // slots to be used again
	observers  observers
	unclosed   *atomic.Int64 // counts it, with its Set's others, while not closed; nil for others
}

// New makes a closed Breaker. It doesn't fail: a faulty config is returned by Err,
// and by every Allow.
func New(config Config) *Breaker {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return &Breaker{config: config, fault: err}
	}
	return newBreaker(config, "")
}

// newBreaker makes a Breaker of a config that has been validated.
func newBreaker(config Config, key string) *Breaker {
	b := &Breaker{config: config, key: key, made: true, window: newWindow(config.SampleSize)}
	if config.OnChange != nil {
		b.observers.add(config.OnChange)
	}
	b.gate = b.newGate()
	return b
}

// newGate makes a closed gate. How long the breaker is open is kept here, because
// Trip and ForceOpen set it, too. gate is asked only when that time is up, and has
// the shortest one there is, which is up then as well.
func (b *Breaker) newGate() *gobreaker.TwoStepCircuitBreaker {
	return gobreaker.NewTwoStepCircuitBreaker(gobreaker.Settings{
		Name:        b.config.Name,
		MaxRequests: uint32(b.config.Probes),
		// With an interval, what takes longer than it would never count.
		Interval:      0,
		Timeout:       1,
		ReadyToTrip:   b.tripped,
		OnStateChange: b.changed,
	})
}

// Err is nil, or says why the Breaker can't be used; it matches ErrConfig.
func (b *Breaker) Err() error {
	switch {
	case b == nil:
		return fmt.Errorf("%w: Breaker is nil, want one made by New", ErrConfig)
	case b.fault != nil:
		return b.fault
	case !b.made:
		return fmt.Errorf("%w: Breaker is a zero value, want one made by New", ErrConfig)
	}
	return nil
}

// Name is Config.Name.
func (b *Breaker) Name() string {
	if b == nil {
		return ""
	}
	return b.config.Name
}

// Key is the breaker's key in its Set, empty outside of one.
func (b *Breaker) Key() string {
	if b == nil {
		return ""
	}
	return b.key
}

// State is the state at this moment. A Breaker that can't be used is Open, as
// it allows nothing.
func (b *Breaker) State() State {
	if b.Err() != nil {
		return Open
	}
	b.mu.Lock()
	state := b.current()
	b.unlock()
	return state
}

// current is the state, after what time has made of it. mu is held.
func (b *Breaker) current() State {
	switch {
	case b.state == Open:
		if b.until.IsZero() || time.Now().Before(b.until) {
			return Open
		}
		b.gate.State() // asking is what makes gobreaker half-open
	case b.forced && !b.until.IsZero() && !time.Now().Before(b.until):
		b.forget()
	}
	return b.state
}

// Allow asks for one call and answers at once: with a Permit, whose Done has to be
// called when the call is over, or with an *OpenError. A Breaker that can't be used
// returns what Err says.
func (b *Breaker) Allow() (Permit, error) {
	if err := b.Err(); err != nil {
		return Permit{}, err
	}
	b.mu.Lock()
	permit, err := b.allow()
	b.unlock()
	return permit, err
}

// allow is Allow. mu is held.
func (b *Breaker) allow() (Permit, error) {
	switch b.current() {
	case Closed:
		return b.permit(nil), nil
	case HalfOpen:
		if !b.held {
			if done, err := b.gate.Allow(); err == nil {
				return b.permit(done), nil
			}
		}
	default:
	}
	return Permit{}, b.refusal()
}

// Wait returns nil as soon as Allow has a chance to succeed: when the breaker is
// closed, or half-open with a probe left that isn't held. Another caller may take
// that probe first; then wait again. If ctx ends before, the error matches ctx's, and
// has in its chain the *OpenError with which Allow would refuse. If ctx has ended
// already, it is ctx's error, bare. A nil ctx never ends. A Breaker that can't be used
// returns what Err says.
func (b *Breaker) Wait(ctx context.Context) error {
	if err := b.Err(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		wake := b.blocked()
		if wake == nil {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return b.waitedInVain(err)
		}
	}
}

// waitedInVain is the error of a Wait whose context has ended.
func (b *Breaker) waitedInVain(ended error) error {
	b.mu.Lock()
	defer b.unlock()
	if b.wouldAllow() {
		return ended
	}
	return fmt.Errorf("%w: %w", ended, b.refusal())
}

// blocked is nil if Allow would succeed, and otherwise a channel that is closed when
// the state changes or probes are no longer held. Nothing else lets Allow succeed:
// gobreaker counts the probes that it has let through, and gives none a second time.
func (b *Breaker) blocked() <-chan struct{} {
	b.mu.Lock()
	defer b.unlock()
	if b.wouldAllow() {
		return nil
	}
	b.wanted = true
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	return b.wake
}

// wouldAllow says whether Allow would succeed. mu is held.
func (b *Breaker) wouldAllow() bool {
	state := b.current()
	return state == Closed || state == HalfOpen && !b.held && b.gate.Counts().Requests < uint32(b.config.Probes)
}

// refusal says why nothing is allowed. mu is held.
func (b *Breaker) refusal() error {
	b.wanted = true
	refusal := &OpenError{Name: b.config.Name, Forced: b.forced}
	if b.state == Open && !b.until.IsZero() {
		// The state was open a moment ago, even if the time is up by now.
		refusal.RetryIn = max(time.Until(b.until), 1)
	}
	return refusal
}

// permit makes a Permit. done reports a probe to gate, and is nil for other calls.
// While closed, gate allows everything, has no interval after which it forgets, and
// looks at its counts at a failure only. So it is used at failures alone, and a call
// that succeeds need not pay for it. mu is held.
func (b *Breaker) permit(done func(bool)) Permit {
	used := b.free
	if used == nil {
		used = &slot{breaker: b}
	} else {
		b.free = used.next
	}
	used.done, used.generation, used.next = done, b.generation, nil
	b.out++
	permit := Permit{slot: used, turn: used.turn}
	if b.state == HalfOpen {
		// gobreaker waits for a probe for good.
		used.watchdog = time.AfterFunc(b.config.ProbeTimeout, func() { permit.Done(Abandoned) })
	}
	return permit
}

// report takes a permit's outcome, once.
func (b *Breaker) report(permit Permit, outcome Outcome) {
	b.mu.Lock()
	defer b.unlock()
	used := permit.slot
	if used.turn != permit.turn {
		return
	}
	done, late := used.done, used.generation != b.generation
	b.recycle(used)
	if !late && !b.forced {
		b.count(done, outcome)
	}
}

// count passes an outcome of this generation on to gate. mu is held.
func (b *Breaker) count(done func(success bool), outcome Outcome) {
	if b.state == HalfOpen {
		done(outcome == Success || outcome == Answered)
		return
	}
	if outcome != Success && outcome != Failure {
		return
	}
	b.window.add(outcome == Failure)
	// It may be a success that fills the window.
	if outcome == Failure || b.window.reached(b.config.Threshold) {
		b.fail()
	}
}

// fail reports one failure to gate while closed, which makes it call tripped. mu is
// held.
func (b *Breaker) fail() {
	if done, err := b.gate.Allow(); err == nil {
		done(false)
	}
}

// recycle makes a slot free for another permit. mu is held.
func (b *Breaker) recycle(used *slot) {
	if used.watchdog != nil {
		used.watchdog.Stop()
		used.watchdog = nil
	}
	used.done = nil
	used.turn++
	used.next, b.free = b.free, used
	b.out--
}

// idle says whether the breaker is closed and no permit of it is out.
func (b *Breaker) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == Closed && !b.forced && b.out == 0
}

// tripped is gate's ReadyToTrip. mu is held.
func (b *Breaker) tripped(gobreaker.Counts) bool {
	return b.imposing || b.window.reached(b.config.Threshold)
}

// changed is gate's OnStateChange. mu is held.
func (b *Breaker) changed(_ string, _, to gobreaker.State) {
	if b.imposing {
		return
	}
	b.become(State(to), CauseOwn)
	if b.state == Open {
		b.endIn(b.config.OpenFor)
	}
}

// become makes gate's new state the breaker's. mu is held.
func (b *Breaker) become(state State, cause Cause) {
	change := Change{Name: b.config.Name, Key: b.key, From: b.state, To: state, At: time.Now(), Cause: cause}
	b.countUnclosed(-1)
	b.state = state
	b.countUnclosed(1)
	b.forget()
	if state == Closed {
		b.wanted = false
	}
	b.awake()
	b.observers.enqueue(change)
}

// countUnclosed adds n to the Set's count if the breaker is not closed. mu is held.
func (b *Breaker) countUnclosed(n int64) {
	if b.unclosed != nil && b.state != Closed {
		b.unclosed.Add(n)
	}
}

// evicted ends that the breaker is one of its Set's.
func (b *Breaker) evicted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.countUnclosed(-1)
	b.unclosed = nil
}

// forget starts the state anew: with nothing remembered, no end and no force, and
// with no earlier permit counting any more. mu is held.
func (b *Breaker) forget() {
	b.generation++
	b.window.clear()
	b.forced = false
	b.endIn(0)
}

// endIn says when the open or forced state ends, 0 that it doesn't. mu is held.
func (b *Breaker) endIn(d time.Duration) {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.until = time.Time{}
	if d > 0 {
		// gobreaker is half-open when its time is past, not when it is reached.
		d = min(d, math.MaxInt64-1) + 1
		b.until = time.Now().Add(d)
		b.timer = time.AfterFunc(d, func() { b.State() })
	}
}

// awake has every Wait look again. mu is held.
func (b *Breaker) awake() {
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
}

// unlock unlocks mu and then notifies observers of what changed under it.
func (b *Breaker) unlock() {
	notify := b.observers.due()
	b.mu.Unlock()
	if notify {
		b.notify()
	}
}
