package delivery_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestNewResultsError(t *testing.T) {
	require.NoError(t, delivery.NewResultsError(nil, nil))
	require.NoError(t, delivery.NewResultsError([]string{"a", "b"}, make([]error, 2)))

	own := errors.New("one of another package")
	err := delivery.NewResultsError([]string{"a", "b", "c"}, []error{nil, own, &delivery.InvalidError{Field: "ID", Problem: "is empty"}})
	require.EqualError(t, err, "2 of 3 failed; [1] b: one of another package; [2] c: delivery: message ID is empty")
	require.ErrorIs(t, err, own)
	require.ErrorIs(t, err, delivery.ErrInvalid)
	require.NotErrorIs(t, err, delivery.ErrNotFound)
	failed, ok := errors.AsType[*delivery.ResultsError](err)
	require.True(t, ok)
	assert.Equal(t, delivery.Result{ID: "a"}, failed.Results[0])
	assert.Equal(t, []error{own, failed.Results[2].Err}, failed.Unwrap())
}
