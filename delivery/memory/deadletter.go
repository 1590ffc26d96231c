package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/esh3artech/barid/delivery"
)

// deadLetters is a list of dead letters. It holds one letter of each ID.
type deadLetters struct {
	mu      sync.Mutex
	letters []delivery.DeadLetter
	index   map[string]int
}

// DeadLetter implements delivery.DeadLetterer. The list holds
// Config.MaxMessages letters; when all of the letters do not fit, none is kept
// and the error matches delivery.ErrRefused.
func (t *Transport) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	if err := t.Ping(ctx); err != nil {
		return err
	}
	kept := slices.Clone(letters)
	for i := range kept {
		isolate(&kept[i].Envelope)
		kept[i].Raw = bytes.Clone(kept[i].Raw)
	}
	return t.queues.letters.put(kept, t.queues.config.MaxMessages)
}

func (l *deadLetters) put(letters []delivery.DeadLetter, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := map[string]bool{}
	for i := range letters {
		if _, known := l.index[letters[i].ID]; !known {
			fresh[letters[i].ID] = true
		}
	}
	if len(l.letters)+len(fresh) > limit {
		return fmt.Errorf("%w: %d dead letters are kept, at most %d can be", delivery.ErrRefused, len(l.letters), limit)
	}
	if l.index == nil {
		l.index = map[string]int{}
	}
	for _, letter := range letters {
		if i, known := l.index[letter.ID]; known {
			l.letters[i] = letter
			continue
		}
		l.index[letter.ID] = len(l.letters)
		l.letters = append(l.letters, letter)
	}
	return nil
}

// DeadLetters returns the dead letters in the order in which they first came.
// The slice belongs to the caller. The letters share their bytes with the
// transport, and must not be changed.
func (t *Transport) DeadLetters() []delivery.DeadLetter {
	if t == nil || t.queues == nil {
		return nil
	}
	l := &t.queues.letters
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.letters)
}

// TakeDeadLetters returns the dead letters and removes them from the transport.
func (t *Transport) TakeDeadLetters() []delivery.DeadLetter {
	if t == nil || t.queues == nil {
		return nil
	}
	l := &t.queues.letters
	l.mu.Lock()
	defer l.mu.Unlock()
	letters := l.letters
	l.letters, l.index = nil, nil
	return letters
}
