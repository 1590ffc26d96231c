package servers_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// shared is also a test of Shared.
var shared servers.Shared

// hostVariable makes the test program a host that starts servers, tells their
// process IDs, and never closes them.
const hostVariable = "BARID_SERVERS_HOST"

func TestMain(m *testing.M) {
	if how := os.Getenv(hostVariable); how != "" {
		host(how)
	}
	goleak.VerifyTestMain(shared.Main(m))
}

func host(how string) {
	ctx := context.Background()
	dir := os.Getenv("BARID_SERVERS_DIR")
	_, err := servers.NewRedis(ctx, servers.RedisConfig{Dir: dir})
	if err == nil && how == "kill" {
		_, err = servers.NewRabbitMQ(ctx, servers.RabbitMQConfig{Dir: dir})
	}
	if err == nil && how == "kill" {
		_, err = servers.NewPostgres(ctx, servers.PostgresConfig{Dir: dir})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	if how == "panic" {
		panic("as a test would")
	}
	select {} // waits for its SIGKILL
}
