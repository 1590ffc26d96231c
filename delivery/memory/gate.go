package memory

// gate bounds what is in a place, and lets senders in by turns. It is used
// under the queues' lock.
type gate struct {
	limit int
	held  int
	line  []*turn
}

// turn is one sender's place in the line. A value in go means: look again.
type turn struct{ look chan struct{} }

// room is how many may go in now. A sender with no turn yet waits behind those
// who have one.
func (g *gate) room(mine *turn) int {
	if len(g.line) > 0 && g.line[0] != mine {
		return 0
	}
	return max(0, g.limit-g.held)
}

// queue gives the last turn.
func (g *gate) queue() *turn {
	mine := &turn{look: make(chan struct{}, 1)}
	g.line = append(g.line, mine)
	return mine
}

// leave gives the turn up.
func (g *gate) leave(mine *turn) {
	for i, other := range g.line {
		if other == mine {
			g.line = append(g.line[:i], g.line[i+1:]...)
			break
		}
	}
	g.call()
}

// release makes room.
func (g *gate) release(n int) {
	g.held -= n
	g.call()
}

// call tells the first in line that there is room.
func (g *gate) call() {
	if len(g.line) > 0 && g.held < g.limit {
		select {
		case g.line[0].look <- struct{}{}:
		default:
		}
	}
}
