package delivery

import (
	"errors"
	"sync"
)

// maxDoubts bounds for how many messages it is remembered that nobody knows
// whether they were saved. What is forgotten is a RetryWorker's after the grace.
const maxDoubts = 10_000

// doubts are messages that may have been saved: the answer was lost. Who publishes
// one of them again learns that it is there, and has to know that nobody is about
// to send it.
type doubts struct {
	mu     sync.Mutex
	claims map[string]string // by ID of the message: what it would be claimed with
}

// add remembers which of a batch may have been saved, claimed by token. A nil
// errs means that all were saved.
func (d *doubts) add(batch []Envelope, errs []error, token string) {
	for i, err := range errs {
		if errors.Is(err, ErrOutcomeUnknown) {
			d.keep(batch[i].ID, token)
		}
	}
}

func (d *doubts) keep(id, token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claims == nil {
		d.claims = map[string]string{}
	}
	if len(d.claims) < maxDoubts {
		d.claims[id] = token
	}
}

// settle forgets envelopes: they are saved now.
func (d *doubts) settle(envelopes []Envelope) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.claims) == 0 {
		return
	}
	for i := range envelopes {
		delete(d.claims, envelopes[i].ID)
	}
}

// take forgets those of the IDs that it knows, and returns them with their claims.
func (d *doubts) take(ids []string) (doubtful, tokens []string) {
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
