package rabbitmq

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

var shared servers.Shared

// distance has TestTransport run that far from the broker.
var distance = flag.Duration("distance", 0, "how long everything takes each way in the conformance suite")

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }
