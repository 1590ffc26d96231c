package delivery

import (
	"fmt"
	"strings"
)

// Priority orders messages that wait at the same time. The zero value is
// Normal. It is a preference, not a promise: see ConsumerConfig.StarvationLimit.
type Priority int8

// The priorities, lowest first.
const (
	Low    Priority = -1
	Normal Priority = 0
	High   Priority = 1
	Urgent Priority = 2
)

// Priorities lists every priority, highest first: the order in which a
// transport should look at its queues.
func Priorities() [4]Priority { return [4]Priority{Urgent, High, Normal, Low} }

// Valid says whether p is one of the four priorities.
func (p Priority) Valid() bool { return p >= Low && p <= Urgent }

// String is the lower-case name that queues, metrics and JSON use.
func (p Priority) String() string {
	switch p {
	case Low:
		return "low"
	case Normal:
		return "normal"
	case High:
		return "high"
	case Urgent:
		return "urgent"
	}
	return fmt.Sprintf("Priority(%d)", int8(p))
}

// ParsePriority is the reverse of String, whatever the case. An empty name is
// Normal.
func ParsePriority(name string) (Priority, error) {
	switch strings.ToLower(name) {
	case "low":
		return Low, nil
	case "", "normal":
		return Normal, nil
	case "high":
		return High, nil
	case "urgent":
		return Urgent, nil
	}
	return Normal, &InvalidError{Field: "Priority", Problem: fmt.Sprintf("is %q, want low, normal, high or urgent", name)}
}

// MarshalText implements encoding.TextMarshaler.
func (p Priority) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, &InvalidError{Field: "Priority", Problem: fmt.Sprintf("is %d, want %d to %d", p, Low, Urgent)}
	}
	return []byte(p.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Priority) UnmarshalText(text []byte) error {
	parsed, err := ParsePriority(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}
