package breaker

// window is a ring of the last outcomes.
type window struct {
	failed   []bool
	next     int // where the next outcome goes
	known    int // how many outcomes there are
	failures int // how many of them failed
}

func newWindow(size int) window { return window{failed: make([]bool, size)} }

// add replaces the oldest outcome once the window is full.
func (w *window) add(failed bool) {
	if w.known < len(w.failed) {
		w.known++
	} else if w.failed[w.next] {
		w.failures--
	}
	w.failed[w.next] = failed
	if failed {
		w.failures++
	}
	if w.next++; w.next == len(w.failed) {
		w.next = 0
	}
}

// reached says whether the window is full and at least the share threshold of it
// failed. A quotient is compared and not a product, because it is the float nearest
// to the share, as a threshold written in decimal is: 3 of 10 reach 0.3.
func (w *window) reached(threshold float64) bool {
	return w.known == len(w.failed) && float64(w.failures)/float64(len(w.failed)) >= threshold
}

// clear forgets all outcomes. What is in the ring need not be wiped, because
// only known outcomes are looked at, and those are written again first.
func (w *window) clear() { w.next, w.known, w.failures = 0, 0, 0 }
