package dlq_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/dlq"
)

func TestFingerprintGroups(t *testing.T) {
	for _, c := range []struct{ name, a, b string }{
		{"numbers", "timeout after 30 ms, attempt 3", "timeout after 1500 ms, attempt 12"},
		{"decimals", "took 1.5 s of 2,000.25", "took 30.125 s of 1"},
		{"numbers in words", "user123 is gone", "user9 is gone"},
		{"phone numbers", "no route to +966500000001", "no route to +966512345678"},
		{"time stamps", "at 2026-01-02T03:04:05Z: late", "at 2027-11-30T23:59:59Z: late"},
		{"durations", "waited 1m30.5s", "waited 2m0s"},
		{"uuids", "order 5c0e3b9e-5b0c-4c8e-9a53-0d6f6c1c7b1d failed", "order DEADBEEF-0000-4000-8000-000000000000 failed"},
		{"0x", "fault at 0xc000012345", "fault at 0xFF"},
		{"long hex", "commit 1a2b3c4d5e6f is bad", "commit 0123456789abcdef0123456789abcdef01234567 is bad"},
		{"ipv4", "dial tcp 10.0.0.1:5672: connection refused", "dial tcp 192.168.178.200:15672: connection refused"},
		{"ipv4 and ipv6", "dial tcp 10.0.0.1:5672: refused", "dial tcp [fe80::1%eth0]:5672: refused"},
		{"ipv6", "no route to 2001:db8:0:0:0:0:2:1", "no route to fe80::1"},
		{"loopback", "bind [::1]:80: in use", "bind 127.0.0.1:8080: in use"},
		{"mail", "mailbox a.b+c@example.com unknown", "mailbox z@sub.example.org unknown"},
		{"double quotes", `no such user "alice"`, `no such user "bob \"the\" builder"`},
		{"single quotes", "column 'name' missing", "column 'age' missing"},
		{"back quotes", "table `a` missing", "table `bcd` missing"},
		{"quote that was cut", `bad body: "hello`, `bad body: "hello and much more…`},
		{"white space", "one  two\n\tthree ", " one two three"},
		{"long tails", strings.Repeat("x ", 200) + "one", strings.Repeat("x ", 200) + "two"},
		{"length", "bad: " + strings.Repeat("1", 3000), "bad: 1"},
		{"invalid UTF-8 in quotes", "bad \"\xff\xfe\"", "bad \"\""},
	} {
		assert.Equal(t, dlq.Fingerprint(c.a), dlq.Fingerprint(c.b), c.name)
	}
}

func TestFingerprintTellsApart(t *testing.T) {
	texts := []string{
		"", "x", "timeout", "connection refused", "can't connect", "won't connect", "can't connect, won't retry",
		"status 404", "status 503", "status code 503", "HTTP 502 bad gateway", "HTTP/404", "code: 429", "code (504)",
		"defaced", "effaced", "user 1 is gone", "order 1 is gone", "Timeout",
	}
	seen := make(map[string]string)
	for _, text := range texts {
		fingerprint := dlq.Fingerprint(text)
		assert.Empty(t, seen[fingerprint], "%q", text)
		seen[fingerprint] = "same as " + text
	}
	// A one-time code is no status.
	assert.Equal(t, dlq.Fingerprint("code 123456 expired"), dlq.Fingerprint("code 987654 expired"))
}

// What is stored today has to match what is stored tomorrow.
func TestFingerprintIsStable(t *testing.T) {
	assert.Equal(t, "e3b0c44298fc1c14", dlq.Fingerprint(""))
	assert.Equal(t, dlq.Fingerprint("dial tcp <address>: i/o timeout"), dlq.Fingerprint("dial tcp 10.1.2.3:80: i/o timeout"))
}

func FuzzFingerprint(f *testing.F) {
	for _, seed := range []string{"", "\"", "'", "`\\", "\xff", "0x", "a@b", "[::1]:80", strings.Repeat("f", 2000), "\"\\"} {
		f.Add(seed)
	}
	digits := regexp.MustCompile(`^[0-9a-f]{16}$`)
	f.Fuzz(func(t *testing.T, text string) {
		fingerprint := dlq.Fingerprint(text)
		assert.Regexp(t, digits, fingerprint)
		assert.Equal(t, fingerprint, dlq.Fingerprint(text))
	})
}
