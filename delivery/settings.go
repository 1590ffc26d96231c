package delivery

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
// A duration may have a unit instead, as time.ParseDuration reads it, under the
// name without the unit:
//
//	"BaseRetryDelay": "500ms", "MaxRetryDelay": "90s", "IdempotencyTtl": "36h",
//	"CircuitBreakerTimeout": "1m30s", "AcknowledgmentTimeout": "90s"
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
	// BaseRetryDelay is the wait before the first retry. Each later one doubles
	// it. Default 5 s, at least 1 ms, at most MaxRetryDelay.
	BaseRetryDelay time.Duration
	// MaxRetryDelay bounds every wait before a retry. Default 5 min, at least 1 ms,
	// at most 30 days.
	MaxRetryDelay time.Duration
	// IdempotencyTTL is for how long a key is remembered, both of what was published
	// and of what was handled. In JSON it is IdempotencyTtl or IdempotencyTtlHours.
	// Default 24 h, at least 2 min, at most a year, and longer than all retries
	// together while both features are on.
	IdempotencyTTL time.Duration
	// CircuitBreakerFailureThreshold is the share of failures that opens a
	// breaker. Default 0.5; above 0, at most 1.
	CircuitBreakerFailureThreshold float64
	// CircuitBreakerSampleSize is how many of the last runs that share is of.
	// Default 10, at least 1, at most 1,000,000.
	CircuitBreakerSampleSize int
	// CircuitBreakerTimeout is how long a breaker stays open before it lets probes
	// through. Default 30 s, at least 1 ms, at most a year.
	CircuitBreakerTimeout time.Duration
	// AcknowledgmentTimeout is how long the end user's acknowledgment is awaited.
	// Default 5 min, at least 1 s, at most a year.
	AcknowledgmentTimeout time.Duration
	// BatchSizeLimit is how many messages one batch may have. Default 1000, at
	// least 1, at most 1,000,000.
	BatchSizeLimit int
	// RecordRetention is for how long the record of a message that ended is kept.
	// Default 30 days, at most 3650 days; 0 keeps records for ever. It may not be less
	// than IdempotencyTTL while Features.Idempotency and Features.RetryWorker are on: a
	// key would outlive the record of the message that has it.
	RecordRetention time.Duration
	// DeadLetterRetention is for how long a dead letter is kept. Default 0, which
	// keeps them for ever; at most 3650 days.
	DeadLetterRetention time.Duration
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
		BaseRetryDelay:                 5 * time.Second,
		MaxRetryDelay:                  5 * time.Minute,
		IdempotencyTTL:                 24 * time.Hour,
		CircuitBreakerFailureThreshold: 0.5,
		CircuitBreakerSampleSize:       10,
		CircuitBreakerTimeout:          30 * time.Second,
		AcknowledgmentTimeout:          5 * time.Minute,
		BatchSizeLimit:                 1000,
		RecordRetention:                30 * 24 * time.Hour,
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
	faulty := map[any]bool{}
	for _, setting := range s.all() {
		if setting.unit != 0 {
			continue // the same value once more
		}
		if value, valid := setting.value(); !valid {
			faulty[setting.target] = true
			faults = append(faults, &SettingsError{Key: setting.path(), Problem: "is " + value + ", want " + setting.wanted()})
		}
	}
	return errors.Join(append(faults, s.contradictions(faulty, nil)...)...)
}

// contradictions are the faults of values that are each within their bounds. What is
// said about those in faulty, which are not, would be noise. Both maps are by
// setting.target; names has what a source calls a setting.
func (s *Settings) contradictions(faulty map[any]bool, names map[any]string) []error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, &SettingsError{Key: settingsSection + "." + key, Problem: fmt.Sprintf(format, args...)})
	}
	if faulty[&s.BaseRetryDelay] || faulty[&s.MaxRetryDelay] {
		return nil
	}
	base := cmp.Or(names[&s.BaseRetryDelay], "BaseRetryDelay")
	longest := cmp.Or(names[&s.MaxRetryDelay], "MaxRetryDelay")
	if s.BaseRetryDelay > s.MaxRetryDelay {
		fault(base, "is %s, want at most %s (%s)", s.BaseRetryDelay, longest, s.MaxRetryDelay)
	}
	if !s.Features.Idempotency || faulty[&s.IdempotencyTTL] {
		return faults
	}
	ttl := cmp.Or(names[&s.IdempotencyTTL], "IdempotencyTtl")
	if kept := s.RecordRetention; s.Features.RetryWorker && kept > 0 && kept < s.IdempotencyTTL && !faulty[&s.RecordRetention] {
		fault(cmp.Or(names[&s.RecordRetention], "RecordRetention"), "is %s, want at least %s (%s), or 0", kept, ttl, s.IdempotencyTTL)
	}
	if faulty[&s.MaxRetries] {
		return faults
	}
	if horizon := retryHorizon(s.Retry()); s.IdempotencyTTL <= horizon {
		fault(ttl, "is %s, want more than all retries together (%s, which MaxRetries, %s and %s make)",
			s.IdempotencyTTL, horizon, base, longest)
	}
	return faults
}

// String is s as JSON on one line, for logs. ParseSettings makes s of it again.
func (s Settings) String() string {
	section, err := json.Marshal(s)
	if err != nil { // a threshold that is no number
		return settingsSection + ": " + err.Error()
	}
	return `{"` + settingsSection + `":` + string(section) + `}`
}

// MarshalJSON makes the section that UnmarshalJSON reads. A duration that is a
// whole number of the unit has that, as in the section above, and any other its
// own.
func (s Settings) MarshalJSON() ([]byte, error) {
	var section, features strings.Builder
	written := map[any]bool{}
	for _, setting := range s.all() {
		if written[setting.target] || !setting.whole() {
			continue
		}
		written[setting.target] = true
		literal, err := setting.literal()
		if err != nil {
			return nil, err
		}
		object, key := &section, setting.key
		if below, isFeature := strings.CutPrefix(key, "Features."); isFeature {
			object, key = &features, below
		}
		if object.Len() > 0 {
			object.WriteByte(',')
		}
		fmt.Fprintf(object, "%q:%s", key, literal)
	}
	return []byte("{" + section.String() + `,"Features":{` + features.String() + "}}"), nil
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

// setting is one value of Settings under one of its names.
type setting struct {
	key       string        // below the section
	target    any           // where it is: *int, *float64, *bool or *time.Duration
	low, high int64         // the bounds of whole numbers and durations
	unit      time.Duration // of a duration that is written as a whole number; else 0
}

// all lists every setting of s. A duration is in it twice: by the name with a unit
// first, as a whole number, and by the one without.
func (s *Settings) all() []setting {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	var all []setting
	add := func(key string, target any, low, high int64) { all = append(all, setting{key, target, low, high, 0}) }
	duration := func(key, inUnits string, unit time.Duration, target *time.Duration, low, high time.Duration) {
		all = append(all, setting{inUnits, target, int64(low), int64(high), unit}, setting{key, target, int64(low), int64(high), 0})
	}
	// The thousand that retryHorizon looks at; and together with the next two
	// bounds, all retries fit a time.Duration.
	add("MaxRetries", &s.MaxRetries, 0, 1000)
	duration("BaseRetryDelay", "BaseRetryDelaySeconds", time.Second, &s.BaseRetryDelay, time.Millisecond, 30*day)
	duration("MaxRetryDelay", "MaxRetryDelaySeconds", time.Second, &s.MaxRetryDelay, time.Millisecond, 30*day)
	// More than the lease that publishers and consumers have unless they are told.
	duration("IdempotencyTtl", "IdempotencyTtlHours", time.Hour, &s.IdempotencyTTL, 2*time.Minute, year)
	add("CircuitBreakerFailureThreshold", &s.CircuitBreakerFailureThreshold, 0, 0)
	add("CircuitBreakerSampleSize", &s.CircuitBreakerSampleSize, 1, 1_000_000)
	duration("CircuitBreakerTimeout", "CircuitBreakerTimeoutSeconds", time.Second, &s.CircuitBreakerTimeout, time.Millisecond, year)
	duration("AcknowledgmentTimeout", "AcknowledgmentTimeoutMinutes", time.Minute, &s.AcknowledgmentTimeout, time.Second, year)
	add("BatchSizeLimit", &s.BatchSizeLimit, 1, 1_000_000)
	duration("RecordRetention", "RecordRetentionDays", day, &s.RecordRetention, 0, 10*year)
	duration("DeadLetterRetention", "DeadLetterRetentionDays", day, &s.DeadLetterRetention, 0, 10*year)
	add("Features.Idempotency", &s.Features.Idempotency, 0, 0)
	add("Features.CircuitBreaker", &s.Features.CircuitBreaker, 0, 0)
	add("Features.Retry", &s.Features.Retry, 0, 0)
	add("Features.PriorityQueues", &s.Features.PriorityQueues, 0, 0)
	add("Features.Batch", &s.Features.Batch, 0, 0)
	add("Features.Acknowledgment", &s.Features.Acknowledgment, 0, 0)
	add("Features.RetryWorker", &s.Features.RetryWorker, 0, 0)
	return all
}

func (s setting) path() string { return settingsSection + "." + s.key }

// hasUnit says whether the value is written as a duration with a unit.
func (s setting) hasUnit() bool {
	_, isDuration := s.target.(*time.Duration)
	return isDuration && s.unit == 0
}

// wanted says which values are valid.
func (s setting) wanted() string {
	switch s.target.(type) {
	case *int:
		return fmt.Sprintf("a whole number from %d to %d", s.low, s.high)
	case *float64:
		return "a number above 0 and at most 1"
	case *time.Duration:
		if s.hasUnit() {
			return fmt.Sprintf(`a duration from %s to %s with its unit, like "90s" or "5m"`, time.Duration(s.low), time.Duration(s.high))
		}
		low := (s.low + int64(s.unit) - 1) / int64(s.unit)
		return fmt.Sprintf("a whole number from %d to %d, or %s with a unit", low, s.high/int64(s.unit), s.withoutUnit())
	}
	return "true or false"
}

// withoutUnit is the name under which the value may have any unit.
func (s setting) withoutUnit() string {
	for _, unit := range []string{"Seconds", "Minutes", "Hours", "Days"} {
		if name, found := strings.CutSuffix(s.key, unit); found {
			return name
		}
	}
	return s.key
}

// value is the value as text, and whether it is valid.
func (s setting) value() (text string, valid bool) {
	switch target := s.target.(type) {
	case *int:
		return strconv.Itoa(*target), s.within(int64(*target))
	case *float64:
		return strconv.FormatFloat(*target, 'g', -1, 64), *target > 0 && *target <= 1 // false for NaN
	case *time.Duration:
		return target.String(), s.within(int64(*target))
	}
	return "", true
}

func (s setting) within(value int64) bool { return s.low <= value && value <= s.high }

// whole says whether the value can be written in the setting's unit.
func (s setting) whole() bool {
	target, isDuration := s.target.(*time.Duration)
	return !isDuration || s.unit == 0 || *target%s.unit == 0
}

// literal is the value in JSON.
func (s setting) literal() ([]byte, error) {
	target, isDuration := s.target.(*time.Duration)
	switch {
	case !isDuration:
		return json.Marshal(s.target)
	case s.hasUnit():
		return json.Marshal(target.String())
	}
	return json.Marshal(int64(*target / s.unit))
}

// read takes the value from a JSON literal, if that is valid.
func (s setting) read(literal string) (valid bool) {
	switch target := s.target.(type) {
	case *int:
		value, err := strconv.Atoi(literal)
		if valid = err == nil && s.within(int64(value)); valid {
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
	case *time.Duration:
		value, err := s.duration(literal)
		if valid = err == nil && s.within(int64(value)); valid {
			*target = value
		}
	}
	return valid
}

// duration reads a duration, in whichever of the two forms the setting has.
func (s setting) duration(literal string) (time.Duration, error) {
	if s.hasUnit() {
		var text string
		if err := json.Unmarshal([]byte(literal), &text); err != nil {
			return 0, err
		}
		return time.ParseDuration(text)
	}
	count, err := strconv.ParseInt(literal, 10, 64)
	if err == nil && (count < 0 || count > s.high/int64(s.unit)) { // and the product fits
		err = strconv.ErrRange
	}
	return time.Duration(count) * s.unit, err
}
