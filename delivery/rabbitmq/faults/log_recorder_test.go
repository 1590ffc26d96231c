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

// logRecorder keeps what the pipeline logs, so that rows can look for events.
type logRecorder struct {
	mu      sync.Mutex
	entries []logEntry
	limit   int // how many are kept: the latest
}

type logEntry struct {
	at   time.Time
	text string // the event and its attributes
}

// How many entries are kept of a row, and of a soak, whose memory is measured.
const (
	rowLogEntries  = 5_000
	soakLogEntries = 200
)

func (r *logRecorder) logger() *slog.Logger { return slog.New(logHandler{recorder: r}) }

type logHandler struct {
	recorder *logRecorder
	attrs    string
}

func (h logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h logHandler) Handle(_ context.Context, record slog.Record) error {
	if record.Message == "message queued" || record.Message == "message delivered" {
		return nil // some for each message
	}
	var text strings.Builder
	text.WriteString(record.Message + h.attrs)
	record.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s=%v", a.Key, a.Value)
		return true
	})
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	if len(h.recorder.entries) >= h.recorder.limit {
		h.recorder.entries = slices.Delete(h.recorder.entries, 0, h.recorder.limit/2)
	}
	h.recorder.entries = append(h.recorder.entries, logEntry{at: record.Time, text: text.String()})
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return h
}

func (h logHandler) WithGroup(string) slog.Handler { return h }

// since returns what was logged after a time and contains all of the words.
func (r *logRecorder) since(from time.Time, words ...string) []logEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []logEntry
	for _, e := range r.entries {
		if e.at.Before(from) || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.text, w) }) {
			continue
		}
		found = append(found, e)
	}
	return found
}

// count is how often all of the words were logged together.
func (r *logRecorder) count(words ...string) int { return len(r.since(time.Time{}, words...)) }

// tail is the latest entries.
func (r *logRecorder) tail(n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text strings.Builder
	for _, e := range r.entries[max(0, len(r.entries)-n):] {
		fmt.Fprintf(&text, "%s %s\n", e.at.Format("15:04:05.000"), e.text)
	}
	return text.String()
}
