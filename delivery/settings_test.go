package delivery_test

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

// defaultsJSON is what operators copy: every setting with its default.
const defaultsJSON = `{"MessageReliability": {"MaxRetries": 5, "BaseRetryDelaySeconds": 5, "MaxRetryDelaySeconds": 300, "IdempotencyTtlHours": 24,
  "CircuitBreakerFailureThreshold": 0.5, "CircuitBreakerSampleSize": 10, "CircuitBreakerTimeoutSeconds": 30,
  "AcknowledgmentTimeoutMinutes": 5, "BatchSizeLimit": 1000,
  "RecordRetentionDays": 30, "DeadLetterRetentionDays": 0,
  "Features": {"Idempotency": true, "CircuitBreaker": true, "Retry": true, "PriorityQueues": true, "Batch": true, "Acknowledgment": true, "RetryWorker": true}}}`

func TestParseSettings(t *testing.T) {
	const day = 24 * time.Hour
	all := delivery.Settings{
		MaxRetries: 1, BaseRetryDelay: 2 * time.Second, MaxRetryDelay: 3 * time.Second, IdempotencyTTL: 4 * time.Hour,
		CircuitBreakerFailureThreshold: 0.25, CircuitBreakerSampleSize: 6, CircuitBreakerTimeout: 7 * time.Second,
		AcknowledgmentTimeout: 8 * time.Minute, BatchSizeLimit: 9, RecordRetention: 10 * day, DeadLetterRetention: 11 * day,
	}
	with := func(change func(*delivery.Settings)) delivery.Settings {
		settings := delivery.DefaultSettings()
		change(&settings)
		return settings
	}
	tests := map[string]struct {
		document string
		environ  []string
		want     delivery.Settings
	}{
		"defaults, spelt out": {document: defaultsJSON, want: delivery.DefaultSettings()},
		"no section":          {document: `{}`, want: delivery.DefaultSettings()},
		"empty section":       {document: `{"MessageReliability": {"Features": {}}}`, want: delivery.DefaultSettings()},
		"every key": {
			document: `{"MessageReliability": {"MaxRetries": 1, "BaseRetryDelaySeconds": 2, "MaxRetryDelaySeconds": 3, "IdempotencyTtlHours": 4,
				"CircuitBreakerFailureThreshold": 0.25, "CircuitBreakerSampleSize": 6, "CircuitBreakerTimeoutSeconds": 7,
				"AcknowledgmentTimeoutMinutes": 8, "BatchSizeLimit": 9, "RecordRetentionDays": 10, "DeadLetterRetentionDays": 11,
				"Features": {"Idempotency": false, "CircuitBreaker": false, "Retry": false, "PriorityQueues": false, "Batch": false, "Acknowledgment": false, "RetryWorker": false}}}`,
			want: all,
		},
		"every variable": {
			document: defaultsJSON,
			environ: []string{
				"MessageReliability__MaxRetries=1", "MessageReliability__BaseRetryDelaySeconds=2", "MessageReliability__MaxRetryDelaySeconds=3",
				"MessageReliability__IdempotencyTtlHours=4", "MessageReliability__CircuitBreakerFailureThreshold=0.25",
				"MessageReliability__CircuitBreakerSampleSize=6", "MessageReliability__CircuitBreakerTimeoutSeconds=7",
				"MessageReliability__AcknowledgmentTimeoutMinutes=8", "MessageReliability__BatchSizeLimit=9",
				"MessageReliability__RecordRetentionDays=10", "MessageReliability__DeadLetterRetentionDays=11",
				"MessageReliability__Features__Idempotency=false", "MessageReliability__Features__CircuitBreaker=false",
				"MessageReliability__Features__Retry=false", "MessageReliability__Features__PriorityQueues=false",
				"MessageReliability__Features__Batch=false", "MessageReliability__Features__Acknowledgment=false",
				"MessageReliability__Features__RetryWorker=false",
			},
			want: all,
		},
		"one feature off": {
			document: `{"MessageReliability": {"Features": {"Batch": false}}}`,
			want:     with(func(s *delivery.Settings) { s.Features.Batch = false }),
		},
		"other people's members": {
			document: `{"Logging": {"Level": {"a": null, "a": 1}}, "MaxRetries": "x", "MessageReliabilityToo": 1, "": [], "MessageReliability": {"MaxRetries": 7}, "Z": 1.5}`,
			want:     with(func(s *delivery.Settings) { s.MaxRetries = 7 }),
		},
		"other people's variables": {
			document: `{}`,
			environ:  []string{"PATH=/bin", "MaxRetries=9", "MESSAGERELIABILITY_PORT=tcp://10.0.0.1:80", "MessageReliability=x", "MessageReliabilityToo__A=1", "=C:=C:\\", "nothing", ""},
			want:     delivery.DefaultSettings(),
		},
		"case does not count": {
			document: `{"messageReliability": {"maxRetries": 7, "IDEMPOTENCYTTLHOURS": 25, "features": {"batch": false}}}`,
			environ:  []string{"MESSAGERELIABILITY__FEATURES__RETRYWORKER=False", "messagereliability__batchsizelimit=3"},
			want: with(func(s *delivery.Settings) {
				s.MaxRetries, s.IdempotencyTTL, s.BatchSizeLimit = 7, 25*time.Hour, 3
				s.Features.Batch, s.Features.RetryWorker = false, false
			}),
		},
		"blanks around a variable's value": {
			environ: []string{"MessageReliability__MaxRetries= 7\n", "MessageReliability__Features__Batch=\tFALSE "},
			want:    with(func(s *delivery.Settings) { s.MaxRetries, s.Features.Batch = 7, false }),
		},
		"a byte order mark": {document: "\ufeff{\"MessageReliability\": {\"MaxRetries\": 7}}", want: with(func(s *delivery.Settings) { s.MaxRetries = 7 })},
		"lower bounds": {
			document: `{"MessageReliability": {"MaxRetries": 0, "BaseRetryDelaySeconds": 1, "MaxRetryDelaySeconds": 1, "IdempotencyTtlHours": 1, "CircuitBreakerFailureThreshold": 1e-300,
				"CircuitBreakerSampleSize": 1, "CircuitBreakerTimeoutSeconds": 1, "AcknowledgmentTimeoutMinutes": 1, "BatchSizeLimit": 1,
				"RecordRetentionDays": 0, "DeadLetterRetentionDays": 0}}`,
			want: with(func(s *delivery.Settings) {
				s.MaxRetries, s.BaseRetryDelay, s.MaxRetryDelay, s.IdempotencyTTL = 0, time.Second, time.Second, time.Hour
				s.CircuitBreakerFailureThreshold, s.CircuitBreakerSampleSize, s.CircuitBreakerTimeout = 1e-300, 1, time.Second
				s.AcknowledgmentTimeout, s.BatchSizeLimit, s.RecordRetention = time.Minute, 1, 0
			}),
		},
		"upper bounds": {
			document: `{"MessageReliability": {"MaxRetries": 1000, "BaseRetryDelaySeconds": 2592000, "MaxRetryDelaySeconds": 2592000, "IdempotencyTtlHours": 8760, "CircuitBreakerFailureThreshold": 1,
				"CircuitBreakerSampleSize": 1000000, "CircuitBreakerTimeoutSeconds": 31536000, "AcknowledgmentTimeoutMinutes": 525600, "BatchSizeLimit": 1000000,
				"RecordRetentionDays": 3650, "DeadLetterRetentionDays": 3650,
				"Features": {"Idempotency": false}}}`,
			want: with(func(s *delivery.Settings) {
				s.MaxRetries, s.BaseRetryDelay, s.MaxRetryDelay, s.IdempotencyTTL = 1000, 30*day, 30*day, 365*day
				s.CircuitBreakerFailureThreshold, s.CircuitBreakerSampleSize, s.CircuitBreakerTimeout = 1, 1000000, 365*day
				s.AcknowledgmentTimeout, s.BatchSizeLimit = 365*day, 1000000
				s.RecordRetention, s.DeadLetterRetention = 3650*day, 3650*day
				s.Features.Idempotency = false
			}),
		},
		"records forgotten before keys, were there a worker": {
			document: `{"MessageReliability": {"RecordRetentionDays": 1, "IdempotencyTtlHours": 48, "Features": {"RetryWorker": false}}}`,
			want: with(func(s *delivery.Settings) {
				s.RecordRetention, s.IdempotencyTTL, s.Features.RetryWorker = day, 48*time.Hour, false
			}),
		},
		"durations with a unit": {
			document: `{"MessageReliability": {"BaseRetryDelay": "500ms", "MaxRetryDelay": "1m30s", "idempotencyttl": "36h", "CircuitBreakerTimeout": "0.1s", "AcknowledgmentTimeout": "90s"}}`,
			want: with(func(s *delivery.Settings) {
				s.BaseRetryDelay, s.MaxRetryDelay, s.IdempotencyTTL = 500*time.Millisecond, 90*time.Second, 36*time.Hour
				s.CircuitBreakerTimeout, s.AcknowledgmentTimeout = 100*time.Millisecond, 90*time.Second
			}),
		},
		"durations with a unit, bounds": {
			document: `{"MessageReliability": {"BaseRetryDelay": "1ms", "MaxRetryDelay": "720h", "MaxRetries": 1, "IdempotencyTtl": "8760h", "CircuitBreakerTimeout": "1ms", "AcknowledgmentTimeout": "1s", "RecordRetention": "8760h"}}`,
			want: with(func(s *delivery.Settings) {
				s.BaseRetryDelay, s.MaxRetryDelay, s.MaxRetries, s.IdempotencyTTL = time.Millisecond, 30*day, 1, 365*day
				s.CircuitBreakerTimeout, s.AcknowledgmentTimeout, s.RecordRetention = time.Millisecond, time.Second, 365*day
			}),
		},
		"variables with a unit, over either form": {
			document: `{"MessageReliability": {"BaseRetryDelaySeconds": 7, "MaxRetryDelay": "1m"}}`,
			environ:  []string{"MessageReliability__BaseRetryDelay= 1.5s ", "MESSAGERELIABILITY__MAXRETRYDELAYSECONDS=90"},
			want: with(func(s *delivery.Settings) {
				s.BaseRetryDelay, s.MaxRetryDelay = 1500*time.Millisecond, 90*time.Second
			}),
		},
		"a window that retries would outlast, were they on": {
			document: `{"MessageReliability": {"MaxRetries": 400, "IdempotencyTtlHours": 24, "Features": {"Retry": false}}}`,
			want:     with(func(s *delivery.Settings) { s.MaxRetries, s.Features.Retry = 400, false }),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var document []byte
			if test.document != "" {
				document = []byte(test.document)
			}
			settings, err := delivery.ParseSettings(document, test.environ)
			require.NoError(t, err)
			assert.Equal(t, test.want, settings)
			assert.NoError(t, settings.Validate())
		})
	}
}

// settingsFaults takes a joined error apart.
func settingsFaults(t *testing.T, err error) []delivery.SettingsError {
	t.Helper()
	require.Error(t, err)
	require.ErrorIs(t, err, delivery.ErrConfig)
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%T", err)
	var faults []delivery.SettingsError
	for _, err := range joined.Unwrap() {
		var fault *delivery.SettingsError
		require.ErrorAs(t, err, &fault)
		faults = append(faults, *fault)
	}
	return faults
}

func TestParseSettingsFaults(t *testing.T) {
	section := func(members string) string { return `{"MessageReliability": {` + members + `}}` }
	const maxRetries = "want a whole number from 0 to 1000"
	tests := map[string]struct {
		document string
		environ  []string
		want     []delivery.SettingsError
	}{
		"empty":                {document: "", want: []delivery.SettingsError{{Problem: "are no JSON: unexpected end of JSON input (line 1)"}}},
		"cut off":              {document: "{\n\"MessageReliability\": {", want: []delivery.SettingsError{{Problem: "are no JSON: unexpected end of JSON input (line 2)"}}},
		"not JSON":             {document: "MaxRetries: 5", want: []delivery.SettingsError{{Problem: "are no JSON: invalid character 'M' looking for beginning of value (line 1)"}}},
		"trailing data":        {document: "{}\n\n{}", want: []delivery.SettingsError{{Problem: "are no JSON: invalid character '{' after top-level value (line 3)"}}},
		"a comment":            {document: "{} // no", want: []delivery.SettingsError{{Problem: "are no JSON: invalid character '/' after top-level value (line 1)"}}},
		"NaN":                  {document: section(`"CircuitBreakerFailureThreshold": NaN`), want: []delivery.SettingsError{{Problem: "are no JSON: invalid character 'N' looking for beginning of value (line 1)"}}},
		"no object":            {document: "[1]", want: []delivery.SettingsError{{Problem: "are an array, want a JSON object with the member MessageReliability"}}},
		"null":                 {document: " null ", want: []delivery.SettingsError{{Problem: "are null, want a JSON object with the member MessageReliability"}}},
		"section no object":    {document: `{"MessageReliability": "x"}`, want: []delivery.SettingsError{{Key: "MessageReliability", Problem: "is a string, want an object"}}},
		"section null":         {document: `{"MessageReliability": null}`, want: []delivery.SettingsError{{Key: "MessageReliability", Problem: "is null, want an object"}}},
		"section twice":        {document: `{"MessageReliability": {}, "messagereliability": {}}`, want: []delivery.SettingsError{{Key: "messagereliability", Problem: "is there twice"}}},
		"section with a colon": {document: `{"MessageReliability:MaxRetries": 5}`, want: []delivery.SettingsError{{Key: "MessageReliability:MaxRetries", Problem: "is not read, want an object MessageReliability with members"}}},
		"features no object":   {document: section(`"Features": true`), want: []delivery.SettingsError{{Key: "MessageReliability.Features", Problem: "is true, want an object"}}},
		"features twice":       {document: section(`"Features": {}, "Features": {}`), want: []delivery.SettingsError{{Key: "MessageReliability.Features", Problem: "is there twice"}}},
		"unknown key": {document: section(`"Retries": 5`), want: []delivery.SettingsError{{Key: "MessageReliability.Retries",
			Problem: "is unknown, want one of MaxRetries, BaseRetryDelaySeconds, BaseRetryDelay, MaxRetryDelaySeconds, MaxRetryDelay, IdempotencyTtlHours, IdempotencyTtl, CircuitBreakerFailureThreshold, CircuitBreakerSampleSize, " +
				"CircuitBreakerTimeoutSeconds, CircuitBreakerTimeout, AcknowledgmentTimeoutMinutes, AcknowledgmentTimeout, BatchSizeLimit, RecordRetentionDays, RecordRetention, DeadLetterRetentionDays, DeadLetterRetention, Features"}}},
		"unknown feature": {document: section(`"Features": {"Batches": true}`), want: []delivery.SettingsError{{Key: "MessageReliability.Features.Batches",
			Problem: "is unknown, want one of Idempotency, CircuitBreaker, Retry, PriorityQueues, Batch, Acknowledgment, RetryWorker"}}},
		"key twice":             {document: section(`"MaxRetries": 5, "MaxRetries": 5`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is there twice"}}},
		"key twice, other case": {document: section(`"MaxRetries": 5, "maxretries": 6`), want: []delivery.SettingsError{{Key: "MessageReliability.maxretries", Problem: "is there twice"}}},
		"feature twice":         {document: section(`"Features": {"Batch": true, "Batch": false}`), want: []delivery.SettingsError{{Key: "MessageReliability.Features.Batch", Problem: "is there twice"}}},
		"number in quotes":      {document: section(`"MaxRetries": "5"`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is a string, " + maxRetries}}},
		"number null":           {document: section(`"MaxRetries": null`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is null, " + maxRetries}}},
		"number an object":      {document: section(`"MaxRetries": {"a": 1}`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is an object, " + maxRetries}}},
		"fraction":              {document: section(`"MaxRetries": 2.5`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is 2.5, " + maxRetries}}},
		"exponent":              {document: section(`"MaxRetries": 1e2`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is 1e2, " + maxRetries}}},
		"below the bound":       {document: section(`"MaxRetries": -1`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is -1, " + maxRetries}}},
		"above the bound":       {document: section(`"MaxRetries": 1001`), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries", Problem: "is 1001, " + maxRetries}}},
		"beyond all bounds": {document: section(`"MaxRetries": 1` + strings.Repeat("0", 400)), want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetries",
			Problem: "is 1" + strings.Repeat("0", 31) + "..., " + maxRetries}}},
		"feature a number": {document: section(`"Features": {"Batch": 1}`), want: []delivery.SettingsError{{Key: "MessageReliability.Features.Batch", Problem: "is 1, want true or false"}}},
		"feature a string": {document: section(`"Features": {"Batch": "true"}`), want: []delivery.SettingsError{{Key: "MessageReliability.Features.Batch", Problem: "is a string, want true or false"}}},
		"threshold 0":      {document: section(`"CircuitBreakerFailureThreshold": 0`), want: []delivery.SettingsError{{Key: "MessageReliability.CircuitBreakerFailureThreshold", Problem: "is 0, want a number above 0 and at most 1"}}},
		"threshold percent": {document: section(`"CircuitBreakerFailureThreshold": 50`), want: []delivery.SettingsError{{Key: "MessageReliability.CircuitBreakerFailureThreshold",
			Problem: "is 50, want a number above 0 and at most 1"}}},
		"threshold infinite": {document: section(`"CircuitBreakerFailureThreshold": 1e999`), want: []delivery.SettingsError{{Key: "MessageReliability.CircuitBreakerFailureThreshold",
			Problem: "is 1e999, want a number above 0 and at most 1"}}},
		"base above max": {document: section(`"MaxRetryDelaySeconds": 4`), want: []delivery.SettingsError{{Key: "MessageReliability.BaseRetryDelay", Problem: "is 5s, want at most MaxRetryDelaySeconds (4s)"}}},
		"retries outlast the window": {document: section(`"MaxRetries": 300`), want: []delivery.SettingsError{{Key: "MessageReliability.IdempotencyTtl",
			Problem: "is 24h0m0s, want more than all retries together (24h35m15s, which MaxRetries, BaseRetryDelay and MaxRetryDelay make)"}}},
		"records forgotten before keys": {document: section(`"IdempotencyTtlHours": 48, "RecordRetentionDays": 1`),
			want: []delivery.SettingsError{{Key: "MessageReliability.RecordRetentionDays", Problem: "is 24h0m0s, want at least IdempotencyTtlHours (48h0m0s), or 0"}}},
		"below no retention": {document: section(`"RecordRetentionDays": -1, "DeadLetterRetentionDays": 3651`),
			want: []delivery.SettingsError{
				{Key: "MessageReliability.RecordRetentionDays", Problem: "is -1, want a whole number from 0 to 3650, or RecordRetention with a unit"},
				{Key: "MessageReliability.DeadLetterRetentionDays", Problem: "is 3651, want a whole number from 0 to 3650, or DeadLetterRetention with a unit"},
			}},
		"retries as long as the window": {document: section(`"MaxRetries": 24, "BaseRetryDelaySeconds": 3600, "MaxRetryDelaySeconds": 3600`),
			want: []delivery.SettingsError{{Key: "MessageReliability.IdempotencyTtl",
				Problem: "is 24h0m0s, want more than all retries together (24h0m0s, which MaxRetries, BaseRetryDelaySeconds and MaxRetryDelaySeconds make)"}}},
		"no noise after a fault": {document: section(`"MaxRetries": 300, "MaxRetryDelaySeconds": 0`),
			want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetryDelaySeconds", Problem: "is 0, want a whole number from 1 to 2592000, or MaxRetryDelay with a unit"}}},
		"both forms": {document: section(`"MaxRetryDelaySeconds": 300, "MaxRetryDelay": "300s"`), environ: []string{"MessageReliability__BaseRetryDelay=1s", "MessageReliability__BaseRetryDelaySeconds=1"},
			want: []delivery.SettingsError{
				{Key: "MessageReliability.MaxRetryDelay", Problem: "is given beside MaxRetryDelaySeconds, want one of the two"},
				{Key: "MessageReliability__BaseRetryDelaySeconds", Problem: "is set beside MessageReliability__BaseRetryDelay, want one of the two"},
			}},
		"no durations": {document: section(`"BaseRetryDelay": 5, "MaxRetryDelay": "300", "IdempotencyTtl": "1d", "CircuitBreakerTimeout": "-5s", "AcknowledgmentTimeout": "3000000h"`),
			want: []delivery.SettingsError{
				{Key: "MessageReliability.BaseRetryDelay", Problem: `is 5, want a duration from 1ms to 720h0m0s with its unit, like "90s" or "5m"`},
				{Key: "MessageReliability.MaxRetryDelay", Problem: `is a string, want a duration from 1ms to 720h0m0s with its unit, like "90s" or "5m"`},
				{Key: "MessageReliability.IdempotencyTtl", Problem: `is a string, want a duration from 2m0s to 8760h0m0s with its unit, like "90s" or "5m"`},
				{Key: "MessageReliability.CircuitBreakerTimeout", Problem: `is a string, want a duration from 1ms to 8760h0m0s with its unit, like "90s" or "5m"`},
				{Key: "MessageReliability.AcknowledgmentTimeout", Problem: `is a string, want a duration from 1s to 8760h0m0s with its unit, like "90s" or "5m"`},
			}},
		"a unit where whole numbers are wanted": {document: section(`"MaxRetryDelaySeconds": "90s"`), environ: []string{"MessageReliability__AcknowledgmentTimeoutMinutes=5m", "MessageReliability__BaseRetryDelaySeconds=9223372036854775807"},
			want: []delivery.SettingsError{
				{Key: "MessageReliability.MaxRetryDelaySeconds", Problem: "is a string, want a whole number from 1 to 2592000, or MaxRetryDelay with a unit"},
				{Key: "MessageReliability__AcknowledgmentTimeoutMinutes", Problem: `is "5m", want a whole number from 1 to 525600, or AcknowledgmentTimeout with a unit`},
				{Key: "MessageReliability__BaseRetryDelaySeconds", Problem: `is "9223372036854775807", want a whole number from 1 to 2592000, or BaseRetryDelay with a unit`},
			}},
		"a base above the longest, in two forms": {document: section(`"MaxRetryDelay": "90s"`), environ: []string{"MessageReliability__BaseRetryDelaySeconds=91"},
			want: []delivery.SettingsError{{Key: "MessageReliability.BaseRetryDelaySeconds", Problem: "is 1m31s, want at most MaxRetryDelay (1m30s)"}}},

		"a path for a name": {document: `{"MessageReliability": {"Features": {}, "Features.Batch": false}, "MessageReliability.Features.Batch": false}`,
			want: []delivery.SettingsError{{Key: "MessageReliability.Features.Batch"}}},
		"no ASCII": {document: `{"MessageReliability": {"MaxRetrieſ": 5, "MaxRetries": 5}}`, want: []delivery.SettingsError{{Key: "MessageReliability.MaxRetrieſ"}}},
		"variables": {
			document: section(`"BatchSizeLimit": 0`),
			environ: []string{
				"MessageReliability__MaxRetries=many", "MessageReliability__Features__Batch=no", "MessageReliability__BatchSizeLimit=5",
				"MessageReliability__CircuitBreakerFailureThreshold=NaN", "MessageReliability__CircuitBreakerSampleSize=", "MessageReliability__CircuitBreakerTimeoutSeconds=0x10", "MessageReliability__AcknowledgmentTimeoutMinutes=+5",
				"MessageReliability__IdempotencyTtlHours=\"24\"", "MESSAGERELIABILITY__MAXRETRIES=3",
			},
			want: []delivery.SettingsError{
				{Key: "MessageReliability.BatchSizeLimit", Problem: "is 0, want a whole number from 1 to 1000000"},
				{Key: "MessageReliability__AcknowledgmentTimeoutMinutes", Problem: `is "+5", want a whole number from 1 to 525600, or AcknowledgmentTimeout with a unit`},
				{Key: "MessageReliability__CircuitBreakerFailureThreshold", Problem: `is "NaN", want a number above 0 and at most 1`},
				{Key: "MessageReliability__CircuitBreakerSampleSize", Problem: `is "", want a whole number from 1 to 1000000`},
				{Key: "MessageReliability__CircuitBreakerTimeoutSeconds", Problem: `is "0x10", want a whole number from 1 to 31536000, or CircuitBreakerTimeout with a unit`},
				{Key: "MessageReliability__Features__Batch", Problem: `is "no", want true or false`},
				{Key: "MessageReliability__IdempotencyTtlHours", Problem: `is "\"24\"", want a whole number from 1 to 8760, or IdempotencyTtl with a unit`},
				{Key: "MessageReliability__MaxRetries", Problem: "is set beside MESSAGERELIABILITY__MAXRETRIES, want one of the two"},
			},
		},
		"unknown variables": {
			document: `{}`,
			environ: []string{
				"MessageReliability__Retries=5", "MessageReliability__=5", "MessageReliability__Features={}", "MessageReliability__Features.Batch=true",
				"MessageReliability:MaxRetries=5", "MessageReliability__Features__=1", "MessageReliability__Features____Batch=true",
			},
			want: []delivery.SettingsError{
				{Key: "MessageReliability:MaxRetries"}, {Key: "MessageReliability__"}, {Key: "MessageReliability__Features.Batch"}, {Key: "MessageReliability__Features"},
				{Key: "MessageReliability__Features__"}, {Key: "MessageReliability__Features____Batch"}, {Key: "MessageReliability__Retries"},
			},
		},
		"all at once": {
			document: section(`"MaxRetries": -1, "Nonsense": 0, "BatchSizeLimit": "x", "Features": {"Batch": null, "Nonsense": true}, "MaxRetryDelaySeconds": 1`),
			environ:  []string{"MessageReliability__Features__Retry=2"},
			want: []delivery.SettingsError{
				{Key: "MessageReliability.MaxRetries", Problem: "is -1, " + maxRetries},
				{Key: "MessageReliability.Nonsense"},
				{Key: "MessageReliability.BatchSizeLimit", Problem: "is a string, want a whole number from 1 to 1000000"},
				{Key: "MessageReliability.Features.Batch", Problem: "is null, want true or false"},
				{Key: "MessageReliability.Features.Nonsense"},
				{Key: "MessageReliability__Features__Retry", Problem: `is "2", want true or false`},
				{Key: "MessageReliability.BaseRetryDelay", Problem: "is 5s, want at most MaxRetryDelaySeconds (1s)"},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			settings, err := delivery.ParseSettings([]byte(test.document), test.environ)
			assert.Zero(t, settings)
			faults := settingsFaults(t, err)
			for i := range min(len(faults), len(test.want)) {
				if test.want[i].Problem == "" { // the list of all names, checked elsewhere
					assert.Contains(t, faults[i].Problem, "is unknown, want one of ")
					faults[i].Problem = ""
				}
			}
			assert.Equal(t, test.want, faults)
			for _, fault := range test.want {
				assert.Contains(t, err.Error(), fault.Problem)
			}
		})
	}
}

// What names a variable as unknown, names those that are known.
func TestParseSettingsNamesEveryVariable(t *testing.T) {
	_, err := delivery.ParseSettings(nil, []string{"MessageReliability__X=1"})
	fault := settingsFaults(t, err)[0]
	names, _ := strings.CutPrefix(fault.Problem, "is unknown, want one of ")
	for name := range strings.SplitSeq(names, ", ") {
		value := "1"
		switch _, err := delivery.ParseSettings(nil, []string{name + "=300s"}); {
		case strings.Contains(name, "__Features__"):
			value = "false"
		case strings.HasSuffix(name, "__RecordRetention"):
			value = "48h" // longer than keys are kept
		case err == nil:
			value = "300s"
		}
		_, err := delivery.ParseSettings(nil, []string{name + "=" + value})
		if name == "MessageReliability__MaxRetryDelaySeconds" {
			require.ErrorContains(t, err, "BaseRetryDelay is 5s, want at most MaxRetryDelaySeconds (1s)")
			continue
		}
		assert.NoError(t, err, name)
	}
}

func TestSettingsErrorIsFitForLogs(t *testing.T) {
	_, err := delivery.ParseSettings([]byte(`{"MessageReliability": {"a\nERROR all is lost": 1, "`+strings.Repeat("x", 1000)+`": 1}}`), nil)
	faults := settingsFaults(t, err)
	require.Len(t, faults, 2)
	for _, fault := range faults {
		assert.NotContains(t, fault.Error(), "\n")
		assert.Less(t, len(fault.Error()), 700)
	}
	assert.Contains(t, faults[0].Error(), `delivery: setting "MessageReliability.a\nERROR all is lost" is unknown`)
}

func TestLoadSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "appsettings.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"MessageReliability": {"MaxRetries": 7, "BatchSizeLimit": 8}}`), 0o600))
	t.Setenv("MessageReliability__BatchSizeLimit", "9")

	settings, err := delivery.LoadSettings(path)
	require.NoError(t, err)
	assert.Equal(t, 7, settings.MaxRetries)
	assert.Equal(t, 9, settings.BatchSizeLimit)

	settings, err = delivery.LoadSettings("")
	require.NoError(t, err)
	assert.Equal(t, 5, settings.MaxRetries)
	assert.Equal(t, 9, settings.BatchSizeLimit)

	_, err = delivery.LoadSettings(path + ".missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, err, delivery.ErrConfig)

	require.NoError(t, os.WriteFile(path, nil, 0o600)) // cut off by a full disk, say
	_, err = delivery.LoadSettings(path)
	require.ErrorContains(t, err, "are no JSON")

	t.Setenv("MessageReliability__BatchSizeLimit", "-9")
	_, err = delivery.LoadSettings("")
	var fault *delivery.SettingsError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, "MessageReliability__BatchSizeLimit", fault.Key)
}

func TestSettingsValidate(t *testing.T) {
	require.NoError(t, delivery.DefaultSettings().Validate())
	assert.Len(t, settingsFaults(t, delivery.Settings{}.Validate()), 8, "all numbers but MaxRetries and those of days")

	settings := delivery.DefaultSettings()
	settings.MaxRetries = -1
	settings.CircuitBreakerFailureThreshold = math.NaN()
	settings.IdempotencyTTL = 1 << 62
	settings.BaseRetryDelay = 301 * time.Second
	assert.Equal(t, []delivery.SettingsError{
		{Key: "MessageReliability.MaxRetries", Problem: "is -1, want a whole number from 0 to 1000"},
		{Key: "MessageReliability.IdempotencyTtl", Problem: `is 1281023h53m38.427387904s, want a duration from 2m0s to 8760h0m0s with its unit, like "90s" or "5m"`},
		{Key: "MessageReliability.CircuitBreakerFailureThreshold", Problem: "is NaN, want a number above 0 and at most 1"},
		{Key: "MessageReliability.BaseRetryDelay", Problem: "is 5m1s, want at most MaxRetryDelay (5m0s)"},
	}, settingsFaults(t, settings.Validate()))
	assert.Contains(t, settings.String(), "NaN")
}

func TestSettingsJSON(t *testing.T) {
	assert.JSONEq(t, defaultsJSON, delivery.DefaultSettings().String())
	odd := delivery.DefaultSettings()
	odd.BaseRetryDelay, odd.AcknowledgmentTimeout = 1500*time.Millisecond, 90*time.Second
	assert.Contains(t, odd.String(), `"BaseRetryDelay":"1.5s","MaxRetryDelaySeconds":300`)
	assert.Contains(t, odd.String(), `"AcknowledgmentTimeout":"1m30s","BatchSizeLimit"`)

	host := struct{ MessageReliability delivery.Settings }{delivery.DefaultSettings()}
	require.NoError(t, json.Unmarshal([]byte(`{"MessageReliability": {"MaxRetries": 7, "Features": {"Batch": false}}}`), &host))
	want := delivery.DefaultSettings()
	want.MaxRetries, want.Features.Batch = 7, false
	assert.Equal(t, want, host.MessageReliability)

	for _, document := range []string{
		`{"MessageReliability": {"maxRetries": 7, "MaxRetries": 8}}`,
		`{"MessageReliability": {"MaxRetries": 8, "Features": {"Batchs": true}}}`,
		`{"MessageReliability": null}`,
	} {
		err := json.Unmarshal([]byte(document), &host)
		require.ErrorIs(t, err, delivery.ErrConfig, document)
		assert.Equal(t, want, host.MessageReliability, "unchanged after a fault")
	}
	require.ErrorIs(t, host.MessageReliability.UnmarshalJSON([]byte(`{`)), delivery.ErrConfig)
	var none *delivery.Settings
	assert.ErrorIs(t, none.UnmarshalJSON([]byte(`{}`)), delivery.ErrConfig)
}

// anySettings draws valid settings.
func anySettings(t *rapid.T) delivery.Settings {
	duration := func(name string, low, high time.Duration) time.Duration {
		unit := rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, name+" unit")
		return max(low, time.Duration(rapid.Int64Range(int64(low), int64(high)).Draw(t, name))/unit*unit)
	}
	const day = 24 * time.Hour
	most := duration("MaxRetryDelay", time.Millisecond, 30*day)
	settings := delivery.Settings{
		MaxRetries:                     rapid.IntRange(0, 1000).Draw(t, "MaxRetries"),
		BaseRetryDelay:                 duration("BaseRetryDelay", time.Millisecond, most),
		MaxRetryDelay:                  most,
		IdempotencyTTL:                 duration("IdempotencyTtl", 2*time.Minute, 365*day),
		CircuitBreakerFailureThreshold: rapid.Float64Range(math.SmallestNonzeroFloat64, 1).Draw(t, "CircuitBreakerFailureThreshold"),
		CircuitBreakerSampleSize:       rapid.IntRange(1, 1_000_000).Draw(t, "CircuitBreakerSampleSize"),
		CircuitBreakerTimeout:          duration("CircuitBreakerTimeout", time.Millisecond, 365*day),
		AcknowledgmentTimeout:          duration("AcknowledgmentTimeout", time.Second, 365*day),
		BatchSizeLimit:                 rapid.IntRange(1, 1_000_000).Draw(t, "BatchSizeLimit"),
		RecordRetention:                rapid.SampledFrom([]time.Duration{0, 365 * day, 3650 * day}).Draw(t, "RecordRetention"),
		DeadLetterRetention:            duration("DeadLetterRetention", 0, 3650*day),
		Features: delivery.Features{
			Idempotency:    rapid.Bool().Draw(t, "Idempotency"),
			CircuitBreaker: rapid.Bool().Draw(t, "CircuitBreaker"),
			Retry:          rapid.Bool().Draw(t, "Retry"),
			PriorityQueues: rapid.Bool().Draw(t, "PriorityQueues"),
			Batch:          rapid.Bool().Draw(t, "Batch"),
			Acknowledgment: rapid.Bool().Draw(t, "Acknowledgment"),
			RetryWorker:    rapid.Bool().Draw(t, "RetryWorker"),
		},
	}
	if settings.Validate() != nil { // the retries outlast the window
		settings.MaxRetries = 0
	}
	return settings
}

func TestSettingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := anySettings(t)
		require.NoError(t, settings.Validate())
		read, err := delivery.ParseSettings([]byte(settings.String()), nil)
		require.NoError(t, err)
		assert.Equal(t, settings, read)

		section, err := json.Marshal(settings)
		require.NoError(t, err)
		var alone delivery.Settings
		require.NoError(t, json.Unmarshal(section, &alone))
		assert.Equal(t, settings, alone)
	})
}

// What is read is valid, and is read again from its own text; what is not is
// told by errors of the one type.
func FuzzParseSettings(f *testing.F) {
	for _, document := range []string{
		"", "{}", "null", "[]", defaultsJSON, "\ufeff" + defaultsJSON, defaultsJSON + "x",
		`{"messagereliability": {"MAXRETRIES": 1}, "MessageReliability": 1, "MessageReliability:A": 2}`,
		`{"MessageReliability": {"MaxRetries": 1e3, "BatchSizeLimit": 2.0, "Features": {"Batch": "no", "Batch": null}, "X": {"Y": []}}}`,
		`{"MessageReliability": {"MaxRetries": 999, "MaxRetryDelaySeconds": 2592000, "BaseRetryDelaySeconds": 2592000, "Features": {"Retry": false}}}`,
		`{"MessageReliability": {"MaxRetryDelay": "1.5ms", "BaseRetryDelaySeconds": 1, "BaseRetryDelay": "1s", "IdempotencyTtl": "9e9h"}}`,
		`{"a": "\ud800", "Message\u0052eliability": {"MaxRetries": -0, "CircuitBreakerFailureThreshold": 5e-324}}`,
	} {
		f.Add([]byte(document), "")
		f.Add([]byte(document), "MessageReliability__MaxRetries=3\nMessageReliability__Features__Batch= False")
	}
	f.Add([]byte("{}"), "messagereliability__CircuitBreakerFailureThreshold=0x1p-2\nMessageReliability__\nMessageReliability:A=1\nMESSAGERELIABILITY__MAXRETRIES=+1\n=\nMessageReliability__Features____Batch=true")
	f.Fuzz(func(t *testing.T, document []byte, environment string) {
		settings, err := delivery.ParseSettings(document, strings.Split(environment, "\n"))
		if err != nil {
			assert.Zero(t, settings)
			for _, fault := range settingsFaults(t, err) {
				assert.NotEmpty(t, fault.Problem)
				assert.NotContains(t, fault.Error(), "\n")
			}
			return
		}
		require.NoError(t, settings.Validate())
		again, err := delivery.ParseSettings([]byte(settings.String()), nil)
		require.NoError(t, err)
		assert.Equal(t, settings, again)
		policy := settings.Retry()
		for n := range 3 {
			assert.GreaterOrEqual(t, policy.Delay(n), policy.Delay(0))
		}
	})
}
