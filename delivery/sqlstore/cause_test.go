package sqlstore

import (
	"errors"
	"syscall"
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

// The three drivers of SQLite have the result code in three ways.
func TestCausesOfSQLite(t *testing.T) {
	for code, want := range map[int]cause{
		3: denied, 23: denied, 5: locked, 6: locked, 8: readOnly, 13: diskFull, 18: refusedValues, 19: refusedValues, 20: refusedValues,
		1: unknown, 10: unknown, 11: unknown, 14: unknown, 26: unknown,
	} {
		for _, extended := range []int{code, code | 1<<8, code | 11<<8} {
			for driver, err := range map[string]error{
				"modernc.org/sqlite":                  &moderncError{extended},
				"github.com/ncruces/go-sqlite3":       &ncrucesError{ncrucesExtended(extended)}, //nolint:gosec // it fits
				"github.com/ncruces/go-sqlite3, bare": ncrucesExtended(extended),                //nolint:gosec // it fits
				"github.com/mattn/go-sqlite3":         mattnError{Code: mattnCode(code), ExtendedCode: mattnCode(extended)},
			} {
				assert.Equal(t, want, causeOf(err), "%s: %d", driver, extended)
				assert.Equal(t, want, causeOf(&commitError{errors.Join(errors.New("x"), err)}), "%s: %d, wrapped", driver, extended)
			}
		}
	}
	for _, err := range []error{syscall.Errno(8), textCode("8"), (*mattnError)(nil), errors.Join(errors.New("x"), errors.New("y"))} {
		assert.Equal(t, unknown, causeOf(err), "%T", err)
	}
}

type moderncError struct{ code int }

func (e *moderncError) Error() string { return "modernc" }
func (e *moderncError) Code() int     { return e.code }

type (
	ncrucesError    struct{ code ncrucesExtended }
	ncrucesCode     uint8
	ncrucesExtended uint16
)

func (e *ncrucesError) Error() string     { return "ncruces" }
func (e *ncrucesError) Code() ncrucesCode { return ncrucesCode(e.code) } //nolint:gosec // the primary code

func (e ncrucesExtended) Error() string     { return "ncruces" }
func (e ncrucesExtended) Code() ncrucesCode { return ncrucesCode(e) } //nolint:gosec // the primary code

type mattnError struct{ Code, ExtendedCode mattnCode }

type mattnCode int

func (e mattnError) Error() string { return "mattn" }

type textCode string

func (e textCode) Error() string { return "else" }
func (e textCode) Code() string  { return string(e) }

type sqlState string

func (s sqlState) Error() string { return string(s) }

func (s sqlState) SQLState() string { return string(s) }
