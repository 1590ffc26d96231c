package sqlstore

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestCauses(t *testing.T) {
	for state, want := range map[string]cause{
		"40001": transient, "40P01": transient, "55P03": locked, "25006": readOnly, "53100": diskFull,
		"57P01": connectionLost, "57P03": connectionLost, "53300": connectionLost, "08003": connectionLost, "22001": refusedValues, "23505": refusedValues, "54000": refusedValues, "42P01": unknown,
	} {
		assert.Equal(t, want, causeOf(sqlState(state)), state)
	}
	assert.Equal(t, noAnswer, causeOf(&noAnswerError{timeout: time.Second, err: errors.New("x")}))
	assert.Equal(t, unknown, causeOf(nil))
	assert.Equal(t, "commit: x", (&commitError{errors.New("x")}).Error())
}

type sqlState string

func (s sqlState) Error() string { return string(s) }

func (s sqlState) SQLState() string { return string(s) }
