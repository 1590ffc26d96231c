package idempotencytest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/idempotencytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(*testing.T) idempotencytest.Harness {
	return idempotencytest.Harness{Store: idempotency.NewMemory(idempotency.MemoryConfig{})}
}

func TestInBubbles(t *testing.T) { idempotencytest.TestStoreInBubbles(t, open) }

func TestInRealTime(t *testing.T) { idempotencytest.TestStore(t, open) }
