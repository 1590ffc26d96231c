package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
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
// and the hash of that. Stored keys depend on this form, so it never changes. ParseKey
// reads it.
func (k Key) String() string {
	var space [MaxKeyBytes]byte
	return string(k.appendTo(space[:0]))
}

// ParseKey reads what Key.String returns, for operators that find a key in a store. It
// is ErrInvalid for any other text, and for "sha256:" with a hash, of which the key
// can't be had.
func ParseKey(text string) (Key, error) {
	if strings.HasPrefix(text, hashed) {
		return Key{}, fmt.Errorf("%w: the key is a hash", ErrInvalid)
	}
	length, rest, _ := strings.Cut(text, ":")
	size, err := strconv.Atoi(length)
	if err != nil || size < 0 || size >= len(rest) || rest[size] != ':' {
		return Key{}, errKeyText
	}
	generation, id, _ := strings.Cut(rest[size+1:], ":")
	key := Key{Scope: rest[:size], ID: id}
	if key.Generation, err = strconv.Atoi(generation); err != nil || key.String() != text {
		return Key{}, errKeyText
	}
	return key, nil
}

// hashed begins the text of a key that is no text itself.
const hashed = "sha256:"

var errKeyText = fmt.Errorf("%w: want a key of the form length of scope:scope:generation:ID", ErrInvalid)

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
	return hex.AppendEncode(append(empty, hashed...), sum[:])
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
