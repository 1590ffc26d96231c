package sqlstore

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

// Any string is read back as it was written, even one that is not UTF-8.
func TestHeadersAndHistoryComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		anything := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) })
		headers := rapid.MapOfN(anything, anything, 1, 4).Draw(t, "headers")
		var back intoHeaders
		require.NoError(t, back.Scan(headersOf(headers)))
		require.Equal(t, headers, map[string]string(back))

		history := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) delivery.Failure {
			at := rapid.Int64Range(-1e15, 1e15).Draw(t, "at")
			return delivery.Failure{At: time.UnixMicro(at).UTC(), Attempt: rapid.Int().Draw(t, "attempt"), Error: anything.Draw(t, "error")}
		}), 1, 4).Draw(t, "history")
		var failures intoHistory
		require.NoError(t, failures.Scan(historyOf(history)))
		require.Equal(t, history, []delivery.Failure(failures))
	})
	assert.Nil(t, headersOf(nil))
	assert.Nil(t, historyOf(nil))
}

// A column that another program has written is an error, not a panic.
func FuzzColumns(f *testing.F) {
	for _, seed := range []string{"", "{", `{"a":1}`, `[["YQ==","Yg=="]]`, `[["YQ=="]]`, `[{"at":1}]`, "null"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, value []byte) {
		_ = new(intoHeaders).Scan(value)
		_ = new(intoHistory).Scan(value)
	})
}

func TestColumnsOfOtherTypes(t *testing.T) {
	for _, into := range []sql.Scanner{
		new(intoString), new(intoStatus), new(intoBytes), new(intoTime), new(intoInt), new(intoPriority), new(intoFlag),
		new(intoHeaders), new(intoHistory),
	} {
		var wrong *typeError
		err := into.Scan(1.5)
		require.ErrorAs(t, err, &wrong, "%T", into)
		assert.Equal(t, "sqlstore: a column holds a float64", err.Error())
		require.NoError(t, into.Scan(nil))
	}
	var number intoInt
	require.NoError(t, number.Scan(int32(7)))
	require.NoError(t, number.Scan(7))
	assert.EqualValues(t, 7, number)
	var body intoBytes
	require.NoError(t, body.Scan("text"))
	assert.Equal(t, intoBytes("text"), body)
}

func TestMicroseconds(t *testing.T) {
	at := time.Date(1969, 12, 31, 23, 59, 59, 999_999_001, time.FixedZone("x", 3600))
	assert.True(t, inMicros(at).Equal(at.Truncate(time.Microsecond)))
	assert.Equal(t, at.Truncate(time.Microsecond).UnixMicro()+1, microsUp(at))
	assert.Equal(t, time.UnixMicro(5).UnixMicro(), microsUp(time.UnixMicro(5)))
	assert.True(t, inMicros(time.Time{}).IsZero())
	assert.Nil(t, microsOf(time.Time{}))
	var zero intoTime
	require.NoError(t, zero.Scan(time.Time{}.UnixMicro()))
	assert.True(t, time.Time(zero).IsZero(), "a time that is never NULL may be zero all the same")
}
