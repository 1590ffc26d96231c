package deliverytest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
)

// stacks is what all goroutines do now.
func stacks() string {
	for size := 1 << 16; ; size *= 2 {
		buffer := make([]byte, size)
		if n := runtime.Stack(buffer, true); n < size {
			return string(buffer[:n])
		}
	}
}

// goroutines is the stack of each goroutine but the caller's, by its number.
func goroutines() map[string]string {
	all := map[string]string{}
	for i, stack := range strings.Split(stacks(), "\n\n") {
		head, _, found := strings.Cut(stack, " [")
		if found && i > 0 {
			all[head] = stack
		}
	}
	return all
}

// newSince is an error with the stacks of goroutines that were not there before.
func newSince(before map[string]string) error {
	var found bytes.Buffer
	for number, stack := range goroutines() {
		if _, known := before[number]; !known {
			fmt.Fprintf(&found, "\n%s\n", stack)
		}
	}
	if found.Len() == 0 {
		return nil
	}
	return fmt.Errorf("deliverytest: goroutines were left:\n%s", found.String())
}
