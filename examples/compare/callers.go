package main

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// callers is how many publish at once, each waiting until its own message is
// confirmed. So no more than these are in flight, on whichever side.
const callers = 64

// byCallers shares n calls among all callers and returns how long they took
// together.
func byCallers(n int, call func(i int) error) (time.Duration, error) {
	faults := make([]error, callers)
	var next atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for caller := range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && faults[caller] == nil; i = int(next.Add(1)) - 1 {
				faults[caller] = call(i)
			}
		})
	}
	all.Wait()
	return time.Since(begin), errors.Join(faults...)
}
