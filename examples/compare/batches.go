package main

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
)

// How messages come into a store, on both sides.
const (
	storeCallers = 16  // publish at once
	storeBatch   = 100 // messages a call
)

// storedBody is valid text, which River's arguments have to be.
func storedBody() []byte { return bytes.Repeat([]byte{'x'}, bodyBytes) }

// inBatches shares n messages among all callers, a batch a call.
func inBatches(n int, call func(from, to int) error) error {
	faults := make([]error, storeCallers)
	var next atomic.Int64
	var all sync.WaitGroup
	for caller := range storeCallers {
		all.Go(func() {
			for faults[caller] == nil {
				to := int(next.Add(storeBatch))
				from := to - storeBatch
				if from >= n {
					return
				}
				faults[caller] = call(from, min(to, n))
			}
		})
	}
	all.Wait()
	return errors.Join(faults...)
}
