package dlqtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	dlqtest.TestStore(t, func(*testing.T) dlq.Store { return dlq.NewMemory(dlq.MemoryConfig{}) })
	dlqtest.TestJobStore(t, func(*testing.T) dlq.JobStore { return dlq.NewMemory(dlq.MemoryConfig{}) })
}
