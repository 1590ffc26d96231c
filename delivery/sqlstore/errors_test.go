package sqlstore_test

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

type stateError string

func (e stateError) Error() string    { return "state " + string(e) }
func (e stateError) SQLState() string { return string(e) }

type codeError int

func (e codeError) Error() string { return fmt.Sprint("code ", int(e)) }
func (e codeError) Code() int     { return int(e) }

func TestDatabaseErrorTellsTheCause(t *testing.T) {
	for _, test := range []struct {
		err                error
		readOnly, diskFull bool
	}{
		{err: stateError("25006"), readOnly: true},
		{err: stateError("53100"), diskFull: true},
		{err: stateError("08006")},
		{err: stateError("40001")},
		{err: codeError(8), readOnly: true},
		{err: codeError(8 | 3<<8), readOnly: true}, // SQLITE_READONLY_ROLLBACK
		{err: codeError(13), diskFull: true},
		{err: codeError(5)},
		{err: codeError(10)},
		{err: fmt.Errorf("wrapped: %w", codeError(13)), diskFull: true},
		{err: driver.ErrBadConn},
		{err: io.ErrUnexpectedEOF},
		{err: errors.New("else")},
	} {
		err := fmt.Errorf("saving: %w", &sqlstore.DatabaseError{Doing: "save", Err: test.err})
		require.ErrorIs(t, err, delivery.ErrStoreDown)
		require.ErrorIs(t, err, test.err)
		assert.Equal(t, test.readOnly, errors.Is(err, sqlstore.ErrReadOnly), test.err)
		assert.Equal(t, test.diskFull, errors.Is(err, sqlstore.ErrDiskFull), test.err)
		assert.Contains(t, err.Error(), "save")
		assert.Contains(t, err.Error(), test.err.Error())
	}
}
