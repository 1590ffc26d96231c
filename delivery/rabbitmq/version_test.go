package rabbitmq

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestVersionAtLeast(t *testing.T) {
	for _, version := range []Version{{4, 3, 0}, {4, 4, 0}, {5, 0, 0}} {
		assert.True(t, version.AtLeast(4, 3), version)
	}
	for _, version := range []Version{{}, {3, 13, 9}, {4, 2, 9}} {
		assert.False(t, version.AtLeast(4, 3), version)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"3.10.8":     {3, 10, 8},
		"4.1.0-rc.1": {4, 1, 0},
		"4.0":        {4, 0, 0},
		"4":          {4, 0, 0},
		"":           {},
		"nonsense":   {},
		"3.x.1":      {3, 0, 0},
	} {
		assert.Equal(t, want, parseVersion(text), text)
	}
}
