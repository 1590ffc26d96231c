package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/breaker"
)

// The usual way to use a breaker: whatever happens, the permit gets an outcome.
func Example() {
	payments := breaker.New(breaker.Config{Name: "payments"})
	pay := func() error { return nil }

	guarded := func() error {
		permit, err := payments.Allow()
		if err != nil {
			return err // errors.Is(err, breaker.ErrOpen)
		}
		outcome := breaker.Abandoned
		defer func() { permit.Done(outcome) }() // on panic and Goexit as well
		if err := pay(); err != nil {
			outcome = breaker.Failure
			return err
		}
		outcome = breaker.Success
		return nil
	}
	fmt.Println(guarded())
	// Output: <nil>
}

func ExampleBreaker() {
	payments := breaker.New(breaker.Config{Name: "payments", SampleSize: 2, OpenFor: time.Hour})
	pay := func() error { return errors.New("no answer") }

	for range 3 {
		permit, err := payments.Allow()
		if err != nil {
			fmt.Println("not tried:", errors.Is(err, breaker.ErrOpen))
			continue
		}
		outcome := breaker.Success
		if err := pay(); err != nil {
			fmt.Println("failed:", err)
			outcome = breaker.Failure
		}
		permit.Done(outcome)
	}
	fmt.Println(payments.State())
	// Output:
	// failed: no answer
	// failed: no answer
	// not tried: true
	// open
}

func ExampleBreaker_Watch() {
	payments := breaker.New(breaker.Config{Name: "payments", SampleSize: 1})
	stop := payments.Watch(func(change breaker.Change) {
		fmt.Println(change.Name, "went from", change.From, "to", change.To)
	})
	defer stop()

	permit, _ := payments.Allow()
	permit.Done(breaker.Failure)
	// Output: payments went from closed to open
}

func ExampleBreaker_Wait() {
	payments := breaker.New(breaker.Config{SampleSize: 1, OpenFor: time.Millisecond})
	permit, _ := payments.Allow()
	permit.Done(breaker.Failure)

	fmt.Println(payments.Wait(context.Background()), payments.State())
	// Output: <nil> half-open
}

func ExampleBreaker_ForceOpen() {
	payments := breaker.New(breaker.Config{Name: "payments"})
	payments.ForceOpen(0) // the provider announced maintenance

	_, err := payments.Allow()
	fmt.Println(err)
	payments.Release()
	fmt.Println(payments.Wait(context.Background()), payments.State())
	// Output:
	// breaker: "payments" is open by force until released
	// <nil> half-open
}

func ExampleSet() {
	hosts := breaker.NewSet(breaker.SetConfig{Breaker: breaker.Config{Name: "hosts", SampleSize: 1}})
	permit, _ := hosts.Get("a.example").Allow()
	permit.Done(breaker.Failure)

	fmt.Println(hosts.Get("a.example").State(), hosts.Get("b.example").State())
	// Output: open closed
}
