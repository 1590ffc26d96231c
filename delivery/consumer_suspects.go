package delivery

import (
	"context"
	"slices"
	"sync"
	"time"
)

// suspects are messages that may end the process. They run one after another, in the
// order in which they got in line, so that it is known which of them did.
type suspects struct {
	mu   sync.Mutex
	line []*suspect // the first one runs
}

// suspect is a message's place in line.
type suspect struct {
	turn chan struct{} // closed when it is the first
}

// enter takes the last place in line for a message, unless it has one.
func (s *suspects) enter(m *inflight) {
	if m.suspect != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.suspect = &suspect{turn: make(chan struct{})}
	s.line = append(s.line, m.suspect)
	if len(s.line) == 1 {
		close(m.suspect.turn)
	}
}

// await waits until the message is the first in line.
func (s *suspects) await(ctx context.Context, m *inflight) error {
	select {
	case <-m.suspect.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ackGrace is for how long a message that was settled keeps its place: if the next one
// ends the process at once, the ack of this one must have arrived, or it would come
// again and be a suspect still.
const ackGrace = 100 * time.Millisecond

// settled gives up the place, if it has one, of a message that was settled.
func (s *suspects) settled(m *inflight) {
	if left := m.suspect; left != nil {
		m.suspect = nil
		time.AfterFunc(ackGrace, func() { s.remove(left) })
	}
}

// leave gives up the message's place, if it has one.
func (s *suspects) leave(m *inflight) {
	if left := m.suspect; left != nil {
		m.suspect = nil
		s.remove(left)
	}
}

func (s *suspects) remove(left *suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := slices.Index(s.line, left)
	s.line = slices.Delete(s.line, place, place+1)
	if place == 0 && len(s.line) > 0 {
		close(s.line[0].turn)
	}
}
