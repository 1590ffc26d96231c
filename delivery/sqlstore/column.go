package sqlstore

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/esh3artech/barid/delivery"
)

// The functions below turn fields into values of columns. Empty strings and zero
// times become NULL, which takes no room.

func bytesOf(s string) any {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func microsOf(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func flagOf(set bool) any {
	if set {
		return int64(1)
	}
	return int64(0)
}

// inMicros is t as it is read back from a column.
func inMicros(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// microsUp is the first microsecond that is not before t.
func microsUp(t time.Time) int64 {
	micros := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		micros++
	}
	return micros
}

// headersOf is a JSON object. Where JSON can't hold a string as it is, it is a
// JSON array of pairs in base64.
func headersOf(headers map[string]string) any {
	if len(headers) == 0 {
		return nil
	}
	valid := true
	for key, value := range headers {
		valid = valid && utf8.ValidString(key) && utf8.ValidString(value)
	}
	var encoded []byte
	var err error
	if valid {
		encoded, err = json.Marshal(headers)
	} else {
		pairs := make([][2][]byte, 0, len(headers))
		for key, value := range headers {
			pairs = append(pairs, [2][]byte{[]byte(key), []byte(value)})
		}
		encoded, err = json.Marshal(pairs)
	}
	if err != nil { // never: strings can always be encoded
		return nil
	}
	return encoded
}

// failure is a delivery.Failure as JSON. Raw holds an Error that JSON can't
// hold as it is.
type failure struct {
	At      int64  `json:"at"`
	Attempt int    `json:"attempt"`
	Error   string `json:"error,omitempty"`
	Raw     []byte `json:"raw,omitempty"`
}

func historyOf(history []delivery.Failure) any {
	if len(history) == 0 {
		return nil
	}
	all := make([]failure, len(history))
	for i, f := range history {
		all[i] = failure{At: f.At.UnixMicro(), Attempt: f.Attempt}
		if utf8.ValidString(f.Error) {
			all[i].Error = f.Error
		} else {
			all[i].Raw = []byte(f.Error)
		}
	}
	encoded, err := json.Marshal(all)
	if err != nil { // never: numbers and strings can always be encoded
		return nil
	}
	return encoded
}

// The types below are sql.Scanners, and read columns into fields: a pointer to a
// field is converted to a pointer to one of them.
type (
	intoString   string
	intoBytes    []byte
	intoTime     time.Time
	intoInt      int
	intoFlag     bool
	intoHeaders  map[string]string
	intoHistory  []delivery.Failure
	intoStatus   delivery.Status
	intoPriority delivery.Priority
)

type typeError struct{ value any }

func (e *typeError) Error() string { return fmt.Sprintf("sqlstore: a column holds a %T", e.value) }

// Scan implements sql.Scanner.
func (s *intoString) Scan(value any) error {
	switch value := value.(type) {
	case nil:
		*s = ""
	case []byte:
		*s = intoString(value)
	case string:
		*s = intoString(value)
	default:
		return &typeError{value}
	}
	return nil
}

// Scan implements sql.Scanner.
func (s *intoStatus) Scan(value any) error { return (*intoString)(s).Scan(value) }

// Scan implements sql.Scanner.
func (b *intoBytes) Scan(value any) error {
	switch value := value.(type) {
	case nil:
		*b = nil
	case []byte: // it belongs to the driver from the next row on
		*b = append(make([]byte, 0, len(value)), value...)
	case string:
		*b = []byte(value)
	default:
		return &typeError{value}
	}
	return nil
}

func scanInteger(value any) (int64, error) {
	switch value := value.(type) {
	case nil:
		return 0, nil
	case int64:
		return value, nil
	case int32:
		return int64(value), nil
	case int:
		return int64(value), nil
	}
	return 0, &typeError{value}
}

// Scan implements sql.Scanner.
func (t *intoTime) Scan(value any) error {
	if value == nil {
		*t = intoTime{}
		return nil
	}
	micros, err := scanInteger(value)
	*t = intoTime(time.UnixMicro(micros).UTC())
	return err
}

// Scan implements sql.Scanner.
func (n *intoInt) Scan(value any) error {
	number, err := scanInteger(value)
	*n = intoInt(number)
	return err
}

// Scan implements sql.Scanner.
func (p *intoPriority) Scan(value any) error {
	number, err := scanInteger(value)
	*p = intoPriority(number) //nolint:gosec // it was a Priority when it was written
	return err
}

// Scan implements sql.Scanner.
func (f *intoFlag) Scan(value any) error {
	number, err := scanInteger(value)
	*f = number != 0
	return err
}

// Scan implements sql.Scanner.
func (h *intoHeaders) Scan(value any) error {
	var encoded intoBytes
	*h = nil
	if err := encoded.Scan(value); err != nil || len(encoded) == 0 {
		return err
	}
	if encoded[0] == '{' {
		return json.Unmarshal(encoded, (*map[string]string)(h))
	}
	var pairs [][2][]byte
	if err := json.Unmarshal(encoded, &pairs); err != nil {
		return err
	}
	*h = make(intoHeaders, len(pairs))
	for _, pair := range pairs {
		(*h)[string(pair[0])] = string(pair[1])
	}
	return nil
}

// Scan implements sql.Scanner.
func (h *intoHistory) Scan(value any) error {
	var encoded intoBytes
	*h = nil
	if err := encoded.Scan(value); err != nil || len(encoded) == 0 {
		return err
	}
	var all []failure
	if err := json.Unmarshal(encoded, &all); err != nil {
		return err
	}
	*h = make(intoHistory, len(all))
	for i, f := range all {
		(*h)[i] = delivery.Failure{At: time.UnixMicro(f.At).UTC(), Attempt: f.Attempt, Error: f.Error + string(f.Raw)}
	}
	return nil
}
