package dlq

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// base64Prefix begins a text that JSON holds in base64.
const base64Prefix = "base64:"

// encodeText returns text as JSON can hold it without changing it: in base64 if
// it is not UTF-8.
func encodeText(text string) string {
	if utf8.ValidString(text) && !strings.HasPrefix(text, base64Prefix) {
		return text
	}
	return base64Prefix + base64.StdEncoding.EncodeToString([]byte(text))
}

// textDecoder undoes encodeText and remembers the first failure.
type textDecoder struct{ err error }

func (d *textDecoder) decode(text string) string {
	encoded, found := strings.CutPrefix(text, base64Prefix)
	if !found {
		return text
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("dlq: decode entry: %w", err)
	}
	return string(decoded)
}

// mapTexts returns texts with f applied to every key and value. It returns nil
// when there are none.
func mapTexts(texts map[string]string, f func(string) string) map[string]string {
	if len(texts) == 0 {
		return nil
	}
	mapped := make(map[string]string, len(texts))
	for key, value := range texts {
		mapped[f(key)] = f(value)
	}
	return mapped
}
