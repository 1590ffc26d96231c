package idempotency

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"sync/atomic"
)

// tokens makes the tokens of a guard's claims, each used by one of them.
//
// What a store shares between processes has to have 128 random bits from the
// operating system each time: a generator in the process would repeat itself in
// a copy of the process, as a restored virtual machine is one. A Memory is in
// the same copy. There the random bits are the guard's, and a count follows.
type tokens struct {
	prefix string // empty for stores that are shared
	count  atomic.Uint64
}

func (t *tokens) init(local bool) {
	if local {
		t.prefix = string(appendRandom(nil)) + "."
	}
}

// next returns key's string and a token. The two share one allocation, since
// stores keep them together.
func (t *tokens) next(key Key) (name, token string) {
	var space [MaxKeyBytes + 48]byte
	text := key.appendTo(space[:0])
	end := len(text)
	if t.prefix == "" {
		text = appendRandom(text)
	} else {
		text = strconv.AppendUint(append(text, t.prefix...), t.count.Add(1), 36)
	}
	both := string(text)
	return both[:end], both[end:]
}

// appendRandom appends 128 random bits as text.
func appendRandom(text []byte) []byte {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails, as its documentation says
	return base64.RawURLEncoding.AppendEncode(text, bits[:])
}
