package memory_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/delivery/memory"
)

func TestSession(t *testing.T) {
	first, other := memory.New(memory.Config{}), memory.New(memory.Config{})
	assert.NotEmpty(t, first.Session())
	assert.Equal(t, first.Session(), first.Another().Session())
	assert.NotEqual(t, first.Session(), other.Session())
	assert.Empty(t, (*memory.Transport)(nil).Session())
	assert.Empty(t, (&memory.Transport{}).Session())
}
