package eviction

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// EachMaster calls question for every server that takes writes: each master of a
// cluster, each shard of a ring that is up, or the one server that there is. A
// client of a type that it does not know is asked once, as a whole, with an empty
// node. All are asked, maybe by several goroutines at once; then the first error
// is returned.
func EachMaster(ctx context.Context, client redis.UniversalClient,
	question func(ctx context.Context, master redis.Cmdable, node string) error,
) error {
	each := func(ctx context.Context, master *redis.Client) error {
		return question(ctx, master, master.Options().Addr)
	}
	switch client := client.(type) {
	case interface {
		ForEachMaster(ctx context.Context, fn func(ctx context.Context, client *redis.Client) error) error
	}:
		return client.ForEachMaster(ctx, each)
	case interface {
		ForEachShard(ctx context.Context, fn func(ctx context.Context, client *redis.Client) error) error
	}:
		return client.ForEachShard(ctx, each)
	case *redis.Client:
		return each(ctx, client)
	}
	return question(ctx, client, "")
}
