package sqlstore

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestArrayLiterals(t *testing.T) {
	d := &dialect{kind: PostgreSQL, arraysAsText: true}
	assert.Equal(t, `{"\\x00ff",NULL,"\\x"}`, d.blobs([][]byte{{0, 255}, nil, {}}))
	assert.Equal(t, `{"a\"\\","",","}`, d.texts([]string{`a"\`, "", ","}))
	assert.Equal(t, `{1,-2}`, d.integers([]int64{1, -2}))
	assert.Equal(t, `{}`, d.integers(nil))
	assert.Equal(t, [][]byte{{1}}, postgreSQL().blobs([][]byte{{1}}))
}
