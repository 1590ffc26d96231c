package courier

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"sync"
)

// Ledger is a file with a line for each thing that happened, which outlives the
// process that writes it, however that dies: the provider's effects, or what the
// host has been told is published. One process writes it, any may read.
type Ledger struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// OpenLedger returns the ledger in the file, which need not be there yet.
func OpenLedger(path string) *Ledger { return &Ledger{path: path} }

// Add writes lines.
func (l *Ledger) Add(lines ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		l.file = file
	}
	var text []byte
	for _, line := range lines {
		text = append(append(text, line...), '\n')
	}
	_, err := l.file.Write(text)
	return err
}

// Counts returns how often each line was written.
func (l *Ledger) Counts() (map[string]int, error) {
	counts := map[string]int{}
	file, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return counts, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		counts[lines.Text()]++
	}
	return counts, lines.Err()
}

// Close closes the file. What was written stays.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
