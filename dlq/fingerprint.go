package dlq

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

const (
	// How many bytes are read of a text, and how many are compared of its normal
	// form. The second is less, so that it makes no difference where the text was
	// cut.
	fingerprintRead     = 1024
	fingerprintCompared = 256

	// fingerprintBytes is how many bytes of the digest make a fingerprint.
	fingerprintBytes = 8
)

// What differs between two errors of the same cause, in the order in which it
// is replaced. A single quote counts only where it is no apostrophe. A quote
// that does not end, because the text was cut, reaches to the end.
var (
	doubleQuoted = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*(?:\"|\\\\?$)|`[^`]*(?:`|$)")
	singleQuoted = regexp.MustCompile(`\B'[^']*'\B`)
	uuids        = regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
	mailAddress  = regexp.MustCompile(`[^\s@<>()\[\],;:"]+@[^\s@<>()\[\],;:"]+`)
	ipAddress    = regexp.MustCompile(`(?i)\[[0-9a-f:.]*:[0-9a-f:.]*(?:%\w+)?\](?::\d+)?|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\b(?:[0-9a-f]{1,4}:){3,7}:?[0-9a-f]{1,4}\b|\b(?:[0-9a-f]{1,4}:)+:(?:[0-9a-f]{1,4})?`)
	hexNumber    = regexp.MustCompile(`(?i)\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b`)
	number       = regexp.MustCompile(`(?i)\b(?:status|code|http)(?: code)?[ :=/(]+\d{3}\b|\d+(?:[.,]\d+)*`)
)

// Fingerprint returns 16 hexadecimal digits that are the same for error texts
// of the same kind. It ignores differences in:
//
//   - what stands in double, single or back quotes
//   - UUIDs
//   - e-mail and IP addresses, with or without a port
//   - hexadecimal numbers with 0x, and those of eight digits or more
//   - decimal numbers, also inside words, except for three digits after the
//     words status, code or http: a 404 is another failure than a 503
//   - the amount of white space
//
// It compares the first 256 bytes of what is left, and reads no more than the
// first 1024 bytes of text. The empty text has a fingerprint too. The digits
// are stable between releases as long as these rules are.
func Fingerprint(text string) string {
	sum := sha256.Sum256([]byte(normalize(text)))
	return hex.EncodeToString(sum[:fingerprintBytes])
}

// normalize puts a placeholder for everything that differs between two errors
// of the same cause.
func normalize(text string) string {
	text = text[:min(len(text), fingerprintRead)]
	text = doubleQuoted.ReplaceAllLiteralString(text, "<text>")
	text = singleQuoted.ReplaceAllLiteralString(text, "<text>")
	text = uuids.ReplaceAllLiteralString(text, "<uuid>")
	text = mailAddress.ReplaceAllLiteralString(text, "<address>")
	text = ipAddress.ReplaceAllLiteralString(text, "<address>")
	text = hexNumber.ReplaceAllStringFunc(text, func(found string) string {
		if strings.ContainsAny(found, "0123456789") {
			return "<number>"
		}
		return found // a word, such as defaced
	})
	text = number.ReplaceAllStringFunc(text, func(found string) string {
		if found[0] < '0' || found[0] > '9' {
			return found
		}
		return "<number>"
	})
	text = strings.Join(strings.Fields(text), " ")
	return text[:min(len(text), fingerprintCompared)]
}
