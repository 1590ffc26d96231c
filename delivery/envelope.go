package delivery

import "time"

// MaxHistory is how many failures an Envelope remembers: the last ones.
const MaxHistory = 10

// maxFailureBytes bounds the text of one remembered failure, so that ten of
// them fit beside the headers.
const maxFailureBytes = 512

// Envelope is a Message on its way, with what the pipeline has to remember
// about it between processes.
type Envelope struct {
	Message
	// Attempt counts the attempts that failed and count: 0 on the first run.
	Attempt int
	// Generation is 0, plus 1 for each replay from the dead letters. Messages of
	// different generations are no duplicates of each other.
	Generation int
	// Crashes is how often this attempt is suspected of having ended the process that
	// made it, where nothing else keeps that, see ConsumerConfig.MaxCrashes.
	Crashes int
	// History holds the last failures, oldest first, at most MaxHistory.
	History []Failure
}

// Failure is one attempt that failed.
type Failure struct {
	At time.Time `json:"at"`
	// Attempt is the number of the attempt that failed, from 1 in each generation,
	// as Attempt.Number is. Of a message that could not be sent it is the attempt
	// that it was to be sent for.
	Attempt int `json:"attempt"`
	// Error is the error's text, shortened if it is long.
	Error string `json:"error"`
}

// failed is e after one more failed attempt. The history is copied: e's own
// stays as it is for a settle that has to be tried again.
func (e *Envelope) failed(now time.Time, err error) Envelope {
	next := *e
	next.Attempt++
	next.Crashes = 0
	next.History = appendFailure(e.History, Failure{At: now, Attempt: next.Attempt, Error: shorten(textOf(err))})
	return next
}

func appendFailure(history []Failure, failure Failure) []Failure {
	if extra := len(history) + 1 - MaxHistory; extra > 0 {
		history = history[extra:]
	}
	return append(append(make([]Failure, 0, len(history)+1), history...), failure)
}

// shorten cuts an error's text at a rune's boundary.
func shorten(text string) string {
	if len(text) <= maxFailureBytes {
		return text
	}
	cut := maxFailureBytes
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}
