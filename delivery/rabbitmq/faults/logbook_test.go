package faults

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// logbook keeps what the pipeline logs, to be asked what happened and when.
type logbook struct {
	mu      sync.Mutex
	entries []entry
	most    int // how many are kept: the last ones
}

type entry struct {
	at   time.Time
	text string // the event and its attributes
}

// How many entries are kept of a row, and of a soak, whose memory is measured.
const (
	rowEntries  = 5_000
	leanEntries = 200
)

func (b *logbook) logger() *slog.Logger { return slog.New(pen{book: b}) }

type pen struct {
	book  *logbook
	attrs string
}

func (p pen) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (p pen) Handle(_ context.Context, record slog.Record) error {
	if record.Message == "delivered" {
		return nil // one a message
	}
	var text strings.Builder
	text.WriteString(record.Message + p.attrs)
	record.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
		return true
	})
	p.book.mu.Lock()
	defer p.book.mu.Unlock()
	if len(p.book.entries) >= p.book.most {
		p.book.entries = slices.Delete(p.book.entries, 0, p.book.most/2)
	}
	p.book.entries = append(p.book.entries, entry{at: record.Time, text: text.String()})
	return nil
}

func (p pen) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		p.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return p
}

func (p pen) WithGroup(string) slog.Handler { return p }

// since returns what was logged after a time and contains all of the words.
func (b *logbook) since(from time.Time, words ...string) []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []entry
	for _, e := range b.entries {
		if e.at.Before(from) || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.text, w) }) {
			continue
		}
		found = append(found, e)
	}
	return found
}

// count is how often all of the words were logged together.
func (b *logbook) count(words ...string) int { return len(b.since(time.Time{}, words...)) }

// tail is the end of the book.
func (b *logbook) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for _, e := range b.entries[max(0, len(b.entries)-n):] {
		fmt.Fprintf(&text, "%s %s\n", e.at.Format("15:04:05.000"), e.text)
	}
	return text.String()
}
