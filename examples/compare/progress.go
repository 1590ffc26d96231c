package main

import (
	"fmt"
	"io"
	"time"
)

// progress tells what goes on, and how much longer.
type progress struct {
	output      io.Writer
	start       time.Time
	done, sides int
}

func newProgress(output io.Writer, sides int) *progress {
	return &progress{output: output, start: time.Now(), sides: sides}
}

func (p *progress) begin(what string) {
	passed := time.Since(p.start)
	left := ""
	if p.done > 0 {
		rest := passed / time.Duration(p.done) * time.Duration(p.sides-p.done)
		left = fmt.Sprintf(", about %s left", rest.Round(time.Second))
	}
	fmt.Fprintf(p.output, "[%s%s] %s: ", passed.Round(time.Second), left, what)
}

func (p *progress) end(rate float64, unit string) {
	p.done++
	fmt.Fprintf(p.output, "%.0f %s\n", rate, unit)
}
