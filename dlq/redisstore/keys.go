package redisstore

import (
	"crypto/sha1" //nolint:gosec // no secret depends on it, and scripts have no other
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// keys names what a store has in Redis:
//
//	{prefix}:entry:ID       a hash for each entry, see entryHash
//	{prefix}:index          a sorted set, see below
//	{prefix}:reasons        a hash: how many entries have a reason
//	{prefix}:types          a hash: how many entries have a type
//	{prefix}:fingerprints   a sorted set: how many entries have a fingerprint,
//	                        negative, so that the most frequent is first
//	{prefix}:jobs           a hash: the JSON of a bulk replay by its ID
//	{prefix}:job-versions   a hash: the version of that JSON
//
// The index has six members for each entry, all with the score 0, so that Redis
// keeps them in the order of their bytes:
//
//	0 place ID              by time
//	n digest place ID       by the n-th value that described returns, then by time
//
// A place is the entry's DeadAt in 16 hexadecimal digits that sort as the times
// do. A digest is 16 digits of the value's SHA-1. Two values that share a
// digest are told apart when the entries are read. So each page of a filter by
// one field is one range of the index, and Redis counts a range without reading
// entries.
//
// All this outlives the program, so its form must not change.
type keys struct {
	prefix      string // with braces and a colon
	entryPrefix string
	// common are the keys that every script on entries gets before those of the
	// entries.
	common [4]string
}

func newKeys(prefix string) keys {
	if !strings.Contains(prefix, "{") {
		prefix = "{" + prefix + "}"
	}
	prefix += ":"
	return keys{
		prefix:      prefix,
		entryPrefix: prefix + "entry:",
		common:      [4]string{prefix + "index", prefix + "reasons", prefix + "types", prefix + "fingerprints"},
	}
}

// jobs returns the keys of the jobs and of their versions.
func (k *keys) jobs() []string { return []string{k.prefix + "jobs", k.prefix + "job-versions"} }

func (k *keys) index() string { return k.common[0] }

func (k *keys) entry(id string) string { return k.entryPrefix + id }

// with returns the common keys and those of the entries of ids.
func (k *keys) with(ids []string) []string {
	all := make([]string, 0, len(k.common)+len(ids))
	all = append(all, k.common[:]...)
	for _, id := range ids {
		all = append(all, k.entry(id))
	}
	return all
}

// The parts of the index, with the numbers that scripts use.
const (
	byTime = iota
	byReason
	byRecipient
	byType
	byFingerprint
	bySource
)

const digits = 16

// part returns what the members of a part of the index begin with: those of one
// value, except byTime.
func part(by int, value string) string {
	if by == byTime {
		return "0"
	}
	sum := sha1.Sum([]byte(value)) //nolint:gosec // see above
	return strconv.Itoa(by) + hex.EncodeToString(sum[:digits/2])
}

// beyond sorts behind all places, because these have hexadecimal digits.
const beyond = "g"

const signBit = 1 << 63

// placeOf returns the place of a time. A time that 64 bits of microseconds
// can't hold gets the first or the last place.
func placeOf(at time.Time) string {
	micros := at.UnixMicro()
	switch year := at.Year(); {
	case year > 290_000:
		micros = math.MaxInt64
	case year < -290_000:
		micros = math.MinInt64
	}
	return fmt.Sprintf("%0*x", digits, uint64(micros)^signBit)
}

// timeOf undoes placeOf.
func timeOf(place string) (time.Time, error) {
	micros, err := strconv.ParseUint(place, 16, 64)
	if err != nil || len(place) != digits {
		return time.Time{}, fmt.Errorf("%w: its place in the index is no time", ErrDamaged)
	}
	return time.UnixMicro(int64(micros ^ signBit)).UTC(), nil
}
