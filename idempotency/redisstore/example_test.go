package redisstore_test

import (
	"fmt"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

func ExampleNew() {
	client, err := redisstore.NewClient("redis://user:password@localhost:6379/0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close() //nolint:errcheck // nothing to be done about it
	store := redisstore.New(client, redisstore.Config{Prefix: "orders:"})
	defer store.Close() //nolint:errcheck // the same

	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
	fmt.Println(guard.Err())
	// Output: <nil>
}

func ExampleOptions() {
	options, err := redisstore.Options("redis://user:password@redis:6379/2")
	if err != nil {
		fmt.Println(err)
		return
	}
	options.PoolSize = 50
	fmt.Println(options.Addr, options.DB, options.ReadTimeout)
	// Output: redis:6379 2 500ms
}
