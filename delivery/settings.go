package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// settingsSection is the member of an application's JSON that holds Settings,
// and the first part of the environment variables' names.
const settingsSection = "MessageReliability"

// Settings is what operators may change about a host without building it
// anew. It has the names, units and shape of this section of an application's
// settings file; the values are the defaults:
//
//	{
//	  "MessageReliability": {
//	    "MaxRetries": 5,
//	    "BaseRetryDelaySeconds": 5,
//	    "MaxRetryDelaySeconds": 300,
//	    "IdempotencyTtlHours": 24,
//	    "CircuitBreakerFailureThreshold": 0.5,
//	    "CircuitBreakerSampleSize": 10,
//	    "CircuitBreakerTimeoutSeconds": 30,
//	    "AcknowledgmentTimeoutMinutes": 5,
//	    "BatchSizeLimit": 1000,
//	    "RecordRetentionDays": 30,
//	    "DeadLetterRetentionDays": 0,
//	    "Features": {
//	      "Idempotency": true,
//	      "CircuitBreaker": true,
//	      "Retry": true,
//	      "PriorityQueues": true,
//	      "Batch": true,
//	      "Acknowledgment": true,
//	      "RetryWorker": true
//	    }
//	  }
//	}
//
// LoadSettings reads it from a file and the environment, ParseSettings says how.
// Consumer, Publisher and the methods beside them put it into the configs.
//
// Settings is a value: copy it freely. The zero value is not the defaults
// (DefaultSettings is) and Validate rejects it. Settings with faults put into
// a config give what that config's constructor rejects or takes as its default.
type Settings struct {
	// MaxRetries is how often a failed message is tried again; 0 is never.
	// Default 5, at most 1000.
	MaxRetries int
	// BaseRetryDelaySeconds is the wait before the first retry. Each later one
	// doubles it. Default 5, at least 1, at most MaxRetryDelaySeconds.
	BaseRetryDelaySeconds int
	// MaxRetryDelaySeconds bounds every wait before a retry. Default 300, at
	// least 1, at most 30 days.
	MaxRetryDelaySeconds int
	// IdempotencyTTLHours is for how long a key is remembered, both of what was
	// published and of what was handled. In JSON it is IdempotencyTtlHours.
	// Default 24, at least 1, at most a year, and longer than all retries
	// together while both features are on.
	IdempotencyTTLHours int `json:"IdempotencyTtlHours"`
	// CircuitBreakerFailureThreshold is the share of failures that opens a
	// breaker. Default 0.5; above 0, at most 1.
	CircuitBreakerFailureThreshold float64
	// CircuitBreakerSampleSize is how many of the last runs that share is of.
	// Default 10, at least 1, at most 1,000,000.
	CircuitBreakerSampleSize int
	// CircuitBreakerTimeoutSeconds is how long a breaker stays open before it
	// lets probes through. Default 30, at least 1, at most a year.
	CircuitBreakerTimeoutSeconds int
	// AcknowledgmentTimeoutMinutes is how long the end user's acknowledgment is
	// awaited. Default 5, at least 1, at most a year.
	AcknowledgmentTimeoutMinutes int
	// BatchSizeLimit is how many messages one batch may have. Default 1000, at
	// least 1, at most 1,000,000.
	BatchSizeLimit int
	// RecordRetentionDays is for how long the record of a message that ended is kept.
	// Default 30, at most 3650; 0 keeps records for ever. It may not be less than
	// IdempotencyTtlHours while Features.Idempotency and Features.RetryWorker are on: a
	// key would outlive the record of the message that has it.
	RecordRetentionDays int
	// DeadLetterRetentionDays is for how long a dead letter is kept. Default 0, which
	// keeps them for ever; at most 3650.
	DeadLetterRetentionDays int
	// Features are all on by default.
	Features Features
}

// Features says which parts are at work. A part that is off loses no message:
// what it kept before stays where it is and stays readable.
type Features struct {
	// Idempotency suppresses duplicates, where the host gives a store for it. Off,
	// every copy is sent and handled.
	Idempotency bool
	// CircuitBreaker holds messages back while the handler keeps failing. Off,
	// every message runs into the failure and counts an attempt.
	CircuitBreaker bool
	// Retry tries a failed message again. Off, the first failure makes a dead
	// letter; retries that were scheduled before still run.
	Retry bool
	// PriorityQueues sends messages by their priority. Off, all that is
	// published is Normal; messages of other priorities still run first or last.
	PriorityQueues bool
	// Batch allows SendBatch.
	Batch bool
	// Acknowledgment awaits the end user's acknowledgment of messages that ask
	// for it. Off, a message is delivered when its handler returns.
	Acknowledgment bool
	// RetryWorker says that what waits for its time waits in the message store,
	// for a RetryWorker. Off, it waits in the transport; what is in the store
	// already stays there until a worker runs again, in whichever process. The host
	// runs one only while this is on.
	RetryWorker bool
}

// DefaultSettings returns the settings that hold where nothing else is said.
func DefaultSettings() Settings {
	return Settings{
		MaxRetries:                     5,
		BaseRetryDelaySeconds:          5,
		MaxRetryDelaySeconds:           300,
		IdempotencyTTLHours:            24,
		CircuitBreakerFailureThreshold: 0.5,
		CircuitBreakerSampleSize:       10,
		CircuitBreakerTimeoutSeconds:   30,
		AcknowledgmentTimeoutMinutes:   5,
		BatchSizeLimit:                 1000,
		RecordRetentionDays:            30,
		Features: Features{
			Idempotency:    true,
			CircuitBreaker: true,
			Retry:          true,
			PriorityQueues: true,
			Batch:          true,
			Acknowledgment: true,
			RetryWorker:    true,
		},
	}
}

// Validate reports every value out of bounds, and those that contradict each
// other, at once, each as a *SettingsError.
func (s Settings) Validate() error {
	var faults []error
	faulty := map[string]bool{}
	for _, setting := range s.all() {
		if value, valid := setting.value(); !valid {
			faulty[setting.key] = true
			faults = append(faults, &SettingsError{Key: setting.path(), Problem: "is " + value + ", want " + setting.wanted()})
		}
	}
	return errors.Join(append(faults, s.contradictions(faulty)...)...)
}

// contradictions are the faults of values that are each within their bounds.
// What is said about those that are not would be noise.
func (s Settings) contradictions(faulty map[string]bool) []error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, &SettingsError{Key: settingsSection + "." + key, Problem: fmt.Sprintf(format, args...)})
	}
	if faulty["BaseRetryDelaySeconds"] || faulty["MaxRetryDelaySeconds"] {
		return nil
	}
	if s.BaseRetryDelaySeconds > s.MaxRetryDelaySeconds {
		fault("BaseRetryDelaySeconds", "is %d, want at most MaxRetryDelaySeconds (%d)", s.BaseRetryDelaySeconds, s.MaxRetryDelaySeconds)
	}
	if !s.Features.Idempotency || faulty["IdempotencyTtlHours"] {
		return faults
	}
	if kept := days(s.RecordRetentionDays); s.Features.RetryWorker && kept > 0 && kept < s.idempotencyTTL() && !faulty["RecordRetentionDays"] {
		fault("RecordRetentionDays", "is %d, want at least IdempotencyTtlHours (%d), or 0", s.RecordRetentionDays, s.IdempotencyTTLHours)
	}
	if faulty["MaxRetries"] {
		return faults
	}
	if horizon := retryHorizon(s.Retry()); s.idempotencyTTL() <= horizon {
		fault("IdempotencyTtlHours", "is %d, want more than all retries together (%s, which MaxRetries, BaseRetryDelaySeconds and MaxRetryDelaySeconds make)",
			s.IdempotencyTTLHours, horizon)
	}
	return faults
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func (s Settings) idempotencyTTL() time.Duration {
	return time.Duration(s.IdempotencyTTLHours) * time.Hour
}

// String is s as JSON on one line, for logs. ParseSettings makes s of it again.
func (s Settings) String() string {
	section, err := json.Marshal(s)
	if err != nil { // a threshold that is no number
		return settingsSection + ": " + err.Error()
	}
	return `{"` + settingsSection + `":` + string(section) + `}`
}

// UnmarshalJSON reads the section alone, without the object around it, and
// leaves the settings that it lacks as they are. So a host whose own
// configuration is a struct may have a field MessageReliability of this type:
// fill it with DefaultSettings first. It is as strict as ParseSettings.
func (s *Settings) UnmarshalJSON(section []byte) error {
	if s == nil {
		return &SettingsError{Problem: "to be read into are nil"}
	}
	reader := newSettingsReader(*s)
	reader.section(section)
	read, err := reader.result()
	if err == nil {
		*s = read
	}
	return err
}

// SettingsError says which setting is at fault. It is ErrConfig.
type SettingsError struct {
	// Key is the whole path, like MessageReliability.Features.Batch, or the name
	// of the environment variable, as it was written. It is empty when the
	// whole document is at fault.
	Key string
	// Problem says what is wrong and what is wanted, as the rest of a sentence.
	Problem string
}

func (e *SettingsError) Error() string {
	key := e.Key
	// A key that is nobody's may be anything, and this goes to a log.
	if quoted := strconv.Quote(key); quoted != `"`+key+`"` || len(key) > 128 {
		key = fmt.Sprintf("%.128q", key)
	}
	if key == "" {
		return "delivery: settings " + e.Problem
	}
	return "delivery: setting " + key + " " + e.Problem
}

// Is makes it ErrConfig.
func (e *SettingsError) Is(target error) bool { return target == ErrConfig }

// setting is one value of Settings: its key below the section, where it is, and
// the bounds if it is a whole number.
type setting struct {
	key       string
	target    any // *int, *float64 or *bool
	low, high int
}

// all lists every setting of s.
func (s *Settings) all() []setting {
	const yearHours = 365 * 24
	return []setting{
		// The thousand that retryHorizon looks at; and together with the next two
		// bounds, all retries fit a time.Duration.
		{"MaxRetries", &s.MaxRetries, 0, 1000},
		{"BaseRetryDelaySeconds", &s.BaseRetryDelaySeconds, 1, 30 * 24 * 60 * 60},
		{"MaxRetryDelaySeconds", &s.MaxRetryDelaySeconds, 1, 30 * 24 * 60 * 60},
		{"IdempotencyTtlHours", &s.IdempotencyTTLHours, 1, yearHours},
		{"CircuitBreakerFailureThreshold", &s.CircuitBreakerFailureThreshold, 0, 0},
		{"CircuitBreakerSampleSize", &s.CircuitBreakerSampleSize, 1, 1_000_000},
		{"CircuitBreakerTimeoutSeconds", &s.CircuitBreakerTimeoutSeconds, 1, yearHours * 60 * 60},
		{"AcknowledgmentTimeoutMinutes", &s.AcknowledgmentTimeoutMinutes, 1, yearHours * 60},
		{"BatchSizeLimit", &s.BatchSizeLimit, 1, 1_000_000},
		{"RecordRetentionDays", &s.RecordRetentionDays, 0, 3650},
		{"DeadLetterRetentionDays", &s.DeadLetterRetentionDays, 0, 3650},
		{"Features.Idempotency", &s.Features.Idempotency, 0, 0},
		{"Features.CircuitBreaker", &s.Features.CircuitBreaker, 0, 0},
		{"Features.Retry", &s.Features.Retry, 0, 0},
		{"Features.PriorityQueues", &s.Features.PriorityQueues, 0, 0},
		{"Features.Batch", &s.Features.Batch, 0, 0},
		{"Features.Acknowledgment", &s.Features.Acknowledgment, 0, 0},
		{"Features.RetryWorker", &s.Features.RetryWorker, 0, 0},
	}
}

func (s setting) path() string { return settingsSection + "." + s.key }

// wanted says which values are valid.
func (s setting) wanted() string {
	switch s.target.(type) {
	case *int:
		return fmt.Sprintf("a whole number from %d to %d", s.low, s.high)
	case *float64:
		return "a number above 0 and at most 1"
	}
	return "true or false"
}

// value is the value as text, and whether it is valid.
func (s setting) value() (text string, valid bool) {
	switch target := s.target.(type) {
	case *int:
		return strconv.Itoa(*target), s.low <= *target && *target <= s.high
	case *float64:
		return strconv.FormatFloat(*target, 'g', -1, 64), *target > 0 && *target <= 1 // false for NaN
	}
	return "", true
}

// read takes the value from a JSON literal, if that is valid.
func (s setting) read(literal string) (valid bool) {
	switch target := s.target.(type) {
	case *int:
		value, err := strconv.Atoi(literal)
		if valid = err == nil && s.low <= value && value <= s.high; valid {
			*target = value
		}
	case *float64:
		value, err := strconv.ParseFloat(literal, 64)
		if valid = err == nil && value > 0 && value <= 1; valid {
			*target = value
		}
	case *bool:
		if valid = literal == "true" || literal == "false"; valid {
			*target = literal == "true"
		}
	}
	return valid
}
