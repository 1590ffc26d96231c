package redisstore_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	defer client.Close() //nolint:errcheck // nothing to be done about it

	store := redisstore.New(client, redisstore.Config{Prefix: "orders:dlq"})
	manager := dlq.NewManager(store, nil, dlq.Config{})
	fmt.Println(manager.Err())

	fmt.Println(redisstore.New(client, redisstore.Config{Prefix: "{orders"}).Err())
	// Output:
	// <nil>
	// dlq/redisstore: invalid config: Prefix is "{orders", want no braces, or one pair with something in it
}
