package servers_test

import (
	"os"
	"testing"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// The tests of a package share one server. TestMain closes it after them.
func ExampleShared() {
	var shared servers.Shared // a global variable of the test package

	_ = func(m *testing.M) { // func TestMain(m *testing.M)
		os.Exit(shared.Main(m).Run())
	}
	_ = func(t *testing.T) { // func TestSend(t *testing.T)
		url, queue := shared.AMQP(t), servers.Unique(t)
		t.Logf("sends to %s at %s", queue, url)
	}
}
