package idempotency_test

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/idempotency"
)

func TestKeyString(t *testing.T) {
	for _, test := range []struct {
		name string
		key  idempotency.Key
		want string
	}{
		{"zero", idempotency.Key{}, "0::0:"},
		{"usual", idempotency.FromID("orders", "42", 0), "6:orders:0:42"},
		{"generation", idempotency.FromID("orders", "42", 3), "6:orders:3:42"},
		{"separators", idempotency.FromID("a:b", "c:d", 0), "3:a:b:0:c:d"},
		{"text beyond ASCII", idempotency.FromID("طلبات", "٤٢", 0), "10:طلبات:0:٤٢"},
		{"longest readable", idempotency.FromID("", strings.Repeat("x", 123), 0), "0::0:" + strings.Repeat("x", 123)},
		{"too long", idempotency.FromID("", strings.Repeat("x", 124), 0), "sha256:506915ad51c77040a89d8f1ef1ef6fed2552c8ead268cb97821051e4b126e158"},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, test.key.String())
		})
	}
}

func TestKeysThatMustNotCollide(t *testing.T) {
	long := strings.Repeat("x", 500)
	keys := []idempotency.Key{
		{}, {Scope: "a"}, {ID: "a"}, {Generation: 1}, {Generation: -1}, {Generation: math.MaxInt},
		{Scope: "a", ID: "b"}, {Scope: "ab"}, {ID: "ab"}, {Scope: "a:b"}, {Scope: "a", ID: ":b"}, {Scope: "a:", ID: "b"},
		{Scope: "a:0:b"}, {Scope: "a", ID: "0:b"}, {Scope: "a", ID: "1", Generation: 1}, {Scope: "a", ID: "11"},
		{Scope: "1:a"}, {Scope: "a", ID: "b\x00"}, {Scope: "a", ID: "b\n"}, {ID: "\xff"}, {ID: "\xfe"}, {ID: "\ufffd"}, {ID: "\u0085"},
		{ID: long}, {Scope: long}, {Scope: long, ID: long}, {Scope: long[1:], ID: "x" + long}, {ID: long, Generation: 1},
	}
	// What is hashed must not meet an ID that reads like a hash.
	keys = append(keys, idempotency.Key{ID: idempotency.Key{ID: long}.String()})
	seen := map[string]idempotency.Key{}
	for _, key := range keys {
		text := key.String()
		other, taken := seen[text]
		require.Falsef(t, taken, "%.60q and %.60q are both %q", key, other, text)
		seen[text] = key
	}
}

func TestKeyStringProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("a:01é\n{")), 0, 80, -1),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		draw := func(name string) idempotency.Key {
			return idempotency.FromID(text.Draw(t, name+" scope"), text.Draw(t, name+" id"), rapid.IntRange(-2, 12).Draw(t, name+" generation"))
		}
		a, b := draw("a"), draw("b")
		assert.Equal(t, a == b, a.String() == b.String())
		assert.LessOrEqual(t, len(a.String()), idempotency.MaxKeyBytes)
		assert.True(t, utf8.ValidString(a.String()))
		assert.Equal(t, -1, strings.IndexFunc(a.String(), unicode.IsControl))
		parsed, err := idempotency.ParseKey(a.String())
		if strings.HasPrefix(a.String(), "sha256:") {
			require.ErrorIs(t, err, idempotency.ErrInvalid)
			return
		}
		require.NoError(t, err)
		assert.Equal(t, a, parsed)
	})
}

func TestParseKey(t *testing.T) {
	key, err := idempotency.ParseKey("3:a:b:2:c:d")
	require.NoError(t, err)
	assert.Equal(t, idempotency.Key{Scope: "a:b", ID: "c:d", Generation: 2}, key)
	for _, text := range []string{
		"", ":", "0", "0:", "0:0:", "6:orders", "6:orders:0", "6:orders:x:42", "5:orders:0:42", "-1::0:", "+0::0:", "00::0:", "0::00:",
		"99999999999999999999::0:", "0::0:" + strings.Repeat("x", 124), "0::0:\n", "orders", "sha256:", "sha256:" + strings.Repeat("0", 64),
	} {
		_, err := idempotency.ParseKey(text)
		require.ErrorIs(t, err, idempotency.ErrInvalid, text)
	}
}

// What is parsed is the text of the key that comes of it.
func FuzzParseKey(f *testing.F) {
	f.Add("6:orders:0:42")
	f.Add("3:a:b:-1:c:d")
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := idempotency.ParseKey(text); err == nil {
			assert.Equal(t, text, key.String())
		}
	})
}

func TestFromContent(t *testing.T) {
	// SHA-256 of nothing at all, from FIPS 180-4's example of the empty message.
	assert.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", idempotency.FromContent())

	parts := func(texts ...string) string {
		var all [][]byte
		for _, text := range texts {
			all = append(all, []byte(text))
		}
		return idempotency.FromContent(all...)
	}
	again := parts("ab", "c")
	assert.Equal(t, parts("ab", "c"), again)
	assert.Len(t, parts("ab", "c"), 64)
	seen := map[string]bool{}
	for _, id := range []string{parts(), parts(""), parts("", ""), parts("abc"), parts("ab", "c"), parts("a", "bc"), parts("abc", ""), parts("", "abc")} {
		assert.False(t, seen[id])
		seen[id] = true
	}
}

func BenchmarkKeyString(b *testing.B) {
	b.ReportAllocs()
	key := idempotency.FromID("orders", "0190a5d6-3d5c-7c1e-8b1a-2f4d6a7b8c9d", 0)
	for b.Loop() {
		_ = key.String()
	}
}

func BenchmarkKeyStringHashed(b *testing.B) {
	b.ReportAllocs()
	key := idempotency.FromID("orders", strings.Repeat("x", 300), 0)
	for b.Loop() {
		_ = key.String()
	}
}
