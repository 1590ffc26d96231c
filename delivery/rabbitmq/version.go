package rabbitmq

import (
	"strconv"
	"strings"
)

// Version is a broker's version. The zero value is an unknown one and is
// treated as the oldest.
type Version struct{ Major, Minor, Patch int }

// AtLeast says whether v is the given version or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// parseVersion reads a version such as "3.10.8" or "4.1.0-rc.1". The first part
// that is no number, and all after it, count as 0.
func parseVersion(text string) Version {
	var numbers [3]int
	text, _, _ = strings.Cut(text, "-")
	for i, part := range strings.SplitN(text, ".", 3) {
		number, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		numbers[i] = number
	}
	return Version{Major: numbers[0], Minor: numbers[1], Patch: numbers[2]}
}
