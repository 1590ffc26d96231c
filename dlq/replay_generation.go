package dlq

// topGeneration stands for itself and all generations above, lest a job pass its
// entries as often as somebody has thought of generations.
const topGeneration = 100

// generations are those that a job has to pass, see Job.Sends. The highest comes
// first. What the job sends is of the next generation, which it has passed by then, so
// that it does not find there what it sent and what failed again. No clock has a say
// in it.
type generations struct {
	sends int // the generation that the job makes of the one below; 0: it only looks
	next  int // what it makes afterwards, as far as it knows; 0: nothing
}

// madeOf returns the generation that a job makes of an entry.
func madeOf(entry *Entry) int { return min(max(entry.Envelope.Generation, 0), topGeneration) + 1 }

// meet reports whether the turn of an entry has come. It remembers that of one whose
// turn comes later.
func (g *generations) meet(entry *Entry) bool {
	made := madeOf(entry)
	if g.sends == 0 || made < g.sends {
		g.next = max(g.next, made)
	}
	return made == g.sends
}
