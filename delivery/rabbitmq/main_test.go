package rabbitmq

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

var shared servers.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }
