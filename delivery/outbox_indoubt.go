package delivery

import (
	"errors"
	"sync"
)

// maxInDoubt bounds how many messages in doubt are remembered. Those that are
// forgotten are a RetryWorker's after the grace.
const maxInDoubt = 10_000

// inDoubt remembers messages that may have been saved: the answer was lost. A
// caller that publishes one of them again learns that it is there; this tells the
// outbox that nobody is about to send it.
type inDoubt struct {
	mu     sync.Mutex
	claims map[string]string // by ID of the message: the token that it would be claimed by
}

// add remembers which of a batch may have been saved, claimed by token. A nil
// errs means that all were saved.
func (d *inDoubt) add(batch []Envelope, errs []error, token string) {
	for i, err := range errs {
		if errors.Is(err, ErrOutcomeUnknown) {
			d.remember(batch[i].ID, token)
		}
	}
}

func (d *inDoubt) remember(id, token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claims == nil {
		d.claims = map[string]string{}
	}
	if len(d.claims) < maxInDoubt {
		d.claims[id] = token
	}
}

// forget forgets envelopes, which are known to be saved now.
func (d *inDoubt) forget(envelopes []Envelope) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.claims) == 0 {
		return
	}
	for i := range envelopes {
		delete(d.claims, envelopes[i].ID)
	}
}

// take forgets those of the IDs that are in doubt, and returns them with the
// tokens of their claims.
func (d *inDoubt) take(ids []string) (doubtful, tokens []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		if token, known := d.claims[id]; known {
			delete(d.claims, id)
			doubtful, tokens = append(doubtful, id), append(tokens, token)
		}
	}
	return doubtful, tokens
}
