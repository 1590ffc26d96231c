package idempotency

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"sync/atomic"
)

// tokens makes the tokens of a guard's claims, a different one for each.
//
// For a store that processes share, each token is 128 random bits from the operating
// system. A generator in the process would repeat itself in a copy of the process,
// such as a restored virtual machine. A Memory is copied together with the process.
// For it the random bits are made once for the guard, and a count follows them.
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
func (t *tokens) next(key Key, holder string) (name, token string) {
	var space [MaxKeyBytes + 48]byte
	text := key.appendTo(space[:0])
	end := len(text)
	if t.prefix == "" {
		text = appendRandom(text)
	} else {
		text = strconv.AppendUint(append(text, t.prefix...), t.count.Add(1), 36)
	}
	if holder != "" {
		text = append(append(text, holderMark), holder...)
	}
	both := string(text)
	return both[:end], both[end:]
}

// holderMark precedes the holder in a token. It is in none of what comes before.
const holderMark = '/'

// holderOf is what the claimant with this token calls itself, if it does.
func holderOf(token string) string {
	_, holder, _ := strings.Cut(token, string(holderMark))
	return holder
}

// appendRandom appends 128 random bits as text.
func appendRandom(text []byte) []byte {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails, as its documentation says
	return base64.RawURLEncoding.AppendEncode(text, bits[:])
}
