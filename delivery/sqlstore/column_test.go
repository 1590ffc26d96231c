package sqlstore

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

// Any string comes back as it was, also what is no UTF-8.
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

// What somebody else has written into a column is an error, not a panic.
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
		new(intoString), new(intoStatus), new(intoBytes), new(intoTime), new(intoInt), new(intoPrio), new(intoFlag),
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

func TestArrayLiterals(t *testing.T) {
	d := &dialect{kind: PostgreSQL, literals: true}
	assert.Equal(t, `{"\\x00ff",NULL,"\\x"}`, d.blobs([][]byte{{0, 255}, nil, {}}))
	assert.Equal(t, `{"a\"\\","",","}`, d.texts([]string{`a"\`, "", ","}))
	assert.Equal(t, `{1,-2}`, d.integers([]int64{1, -2}))
	assert.Equal(t, `{}`, d.integers(nil))
	assert.Equal(t, [][]byte{{1}}, postgreSQL().blobs([][]byte{{1}}))
}

type sqlState string

func (s sqlState) Error() string    { return string(s) }
func (s sqlState) SQLState() string { return string(s) }

func TestCauses(t *testing.T) {
	for state, want := range map[string]cause{
		"40001": passing, "40P01": passing, "55P03": passing, "25006": readOnly, "53100": diskFull,
		"57P01": gone, "57P03": gone, "53300": gone, "08003": gone, "22001": statement, "23505": statement, "54000": statement, "42P01": unknown,
	} {
		assert.Equal(t, want, causeOf(sqlState(state)), state)
	}
	assert.Equal(t, silent, causeOf(&silence{timeout: time.Second, err: errors.New("x")}))
	assert.Equal(t, unknown, causeOf(nil))
	assert.Equal(t, "commit: x", (&commitError{errors.New("x")}).Error())
}
