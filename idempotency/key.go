package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// MaxKeyBytes bounds the length of what Key.String returns. With a scope of usual
// length and a UUID the key stays readable in a store.
const MaxKeyBytes = 128

// Key names a piece of work. Keys that differ in any field are different work.
type Key struct {
	// Scope separates different work for the same ID; for instance, it is the
	// consumer's name.
	Scope string
	// ID is what duplicates have in common: an idempotency key that the caller has
	// chosen, or one made by FromContent.
	ID string
	// Generation is 0, plus 1 each time that the work is replayed on purpose.
	Generation int
}

// FromID returns the Key of an ID within a scope.
func FromID(scope, id string, generation int) Key {
	return Key{Scope: scope, ID: id, Generation: generation}
}

// FromContent returns an ID for work that has none, made from the parts that make it
// the same work: 64 hexadecimal digits of SHA-256. Every part counts with its
// length, so the ID differs when bytes move from one part to the next.
func FromContent(parts ...[]byte) string {
	hash := sha256.New()
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		hash.Write(length[:])
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// String is the key as a Store has it: at most MaxKeyBytes of valid UTF-8 without
// control characters, and different for different keys. It is
// "length of scope:scope:generation:ID", where the length makes a scope with colons
// unambiguous. A key that is too long, or has bytes that are no text, is "sha256:"
// and the hash of that. Stored keys depend on this form, so it never changes.
func (k Key) String() string {
	var space [MaxKeyBytes]byte
	return string(k.appendTo(space[:0]))
}

// appendTo appends what String returns to an empty slice.
func (k Key) appendTo(empty []byte) []byte {
	name := strconv.AppendInt(empty, int64(len(k.Scope)), 10)
	name = append(name, ':')
	name = append(name, k.Scope...)
	name = append(name, ':')
	name = strconv.AppendInt(name, int64(k.Generation), 10)
	name = append(name, ':')
	name = append(name, k.ID...)
	if len(name) <= MaxKeyBytes && readable(name) {
		return name
	}
	sum := sha256.Sum256(name)
	return hex.AppendEncode(append(empty, "sha256:"...), sum[:])
}

func readable(text []byte) bool {
	i := 0
	for i < len(text) && text[i]-' ' < 0x7f-' ' { // most have nothing but these
		i++
	}
	for i < len(text) {
		if c := text[i]; c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 || unicode.IsControl(r) {
			return false
		}
		i += size
	}
	return true
}
