package delivery

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// Position is a place in a list that is ordered by time, and by ID among
// equals. A page that begins after a position, and not after a count, stays stable
// while entries come and go.
type Position struct {
	At time.Time
	ID string
}

// Compare is negative when p is older than other, 0 when they are the same,
// positive when p is newer.
func (p Position) Compare(other Position) int {
	if byTime := p.At.Compare(other.At); byTime != 0 {
		return byTime
	}
	return strings.Compare(p.ID, other.ID)
}

// A cursor is a version, the digest of the query that it belongs to, the
// microseconds of the position's time, and its ID.
const (
	cursorVersion = 1
	cursorHead    = 1 + 8 + 8
)

var cursorText = base64.RawURLEncoding.Strict()

// EncodeCursor writes position as the cursor of a query with the digest.
func EncodeCursor(position Position, digest uint64) string {
	cursor := make([]byte, 0, cursorHead+len(position.ID))
	cursor = append(cursor, cursorVersion)
	cursor = binary.BigEndian.AppendUint64(cursor, digest)
	cursor = binary.BigEndian.AppendUint64(cursor, uint64(position.At.UnixMicro()))
	return cursorText.EncodeToString(append(cursor, position.ID...))
}

// DecodeCursor is the reverse of EncodeCursor. What it can't read, or what
// belongs to a query with another digest, is ErrCursor.
func DecodeCursor(text string, digest uint64) (Position, error) {
	cursor, err := cursorText.DecodeString(text)
	// The decoder passes over line breaks, which no cursor has.
	if err != nil || strings.ContainsAny(text, "\r\n") || len(cursor) <= cursorHead || cursor[0] != cursorVersion {
		return Position{}, fmt.Errorf("%w: it is damaged", ErrCursor)
	}
	if binary.BigEndian.Uint64(cursor[1:]) != digest {
		return Position{}, fmt.Errorf("%w: it belongs to a query with another filter or order", ErrCursor)
	}
	return Position{
		At: time.UnixMicro(int64(binary.BigEndian.Uint64(cursor[9:]))).UTC(),
		ID: string(cursor[cursorHead:]),
	}, nil
}

// CursorDigest is the digest of the fields that a query filters and orders by.
// Pages belong together if the digests of their queries are equal.
func CursorDigest(fields ...string) uint64 {
	hash := fnv.New64a()
	for _, field := range fields {
		_ = binary.Write(hash, binary.BigEndian, uint64(len(field)))
		_, _ = hash.Write([]byte(field))
	}
	return hash.Sum64()
}
