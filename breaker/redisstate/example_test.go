package redisstate_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/breaker/redisstate"
)

// A process that shares its breaker for as long as it runs.
func Example() {
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	defer client.Close() //nolint:errcheck // nothing to be done about it
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	payments := breaker.New(breaker.Config{Name: "payments"})
	fleet := redisstate.New(client, redisstate.Config{})
	if err := fleet.Share(payments); err != nil {
		fmt.Println(err)
		return
	}
	_ = fleet.Sync(ctx) // so that a force is known from the first call on
	go fleet.Run(ctx)   //nolint:errcheck // the config is known to be good

	permit, err := payments.Allow()
	if err != nil {
		return
	}
	permit.Done(breaker.Success)
}

func ExampleFleet_Share() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	defer client.Close() //nolint:errcheck // nothing to be done about it

	payments := breaker.New(breaker.Config{Name: "payments"})
	mail := breaker.New(breaker.Config{Name: "mail"})
	fleet := redisstate.New(client, redisstate.Config{})
	if err := fleet.Share(payments, mail); err != nil {
		fmt.Println(err)
		return
	}

	permit, err := payments.Allow() // local, with Redis or without
	permit.Done(breaker.Success)
	fmt.Println(err)
	// Output: <nil>
}

func ExampleFleet_ForceOpen() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	defer client.Close() //nolint:errcheck // nothing to be done about it
	fleet := redisstate.New(client, redisstate.Config{})

	maintenance := redisstate.Force{By: "nadia", Reason: "the provider is being moved"}
	if err := fleet.ForceOpen(context.Background(), "payments", maintenance); err != nil {
		return
	}
	view, err := fleet.View(context.Background(), "payments")
	if err != nil {
		return
	}
	fmt.Println(view.State, "by", view.By, "because", view.Reason)
}
