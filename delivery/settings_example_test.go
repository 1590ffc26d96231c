package delivery_test

import (
	"errors"
	"fmt"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
)

// An application's settings file and its environment become the configs. The
// host fills in what is no operator's business.
func ExampleParseSettings() {
	appsettings := []byte(`{
		"Logging": {"Level": "Warning"},
		"MessageReliability": {
			"MaxRetries": 8,
			"AcknowledgmentTimeout": "90s",
			"Features": {"PriorityQueues": false}
		}
	}`)
	settings, err := delivery.ParseSettings(appsettings, []string{
		"PATH=/usr/bin",
		"MessageReliability__MaxRetries=3",
		"MessageReliability__Features__CircuitBreaker=false",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(settings)

	config := settings.Consumer(delivery.ConsumerConfig{
		Concurrency: 4,
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
	})
	fmt.Println("third retry after", config.Retry.Delay(2), "fourth:", config.Retry.CanRetry(3))
	fmt.Println("remembered for", config.IdempotencyWindow, "breaker:", config.Breaker != nil)
	// Output:
	// {"MessageReliability":{"MaxRetries":3,"BaseRetryDelaySeconds":5,"MaxRetryDelaySeconds":300,"IdempotencyTtlHours":24,"CircuitBreakerFailureThreshold":0.5,"CircuitBreakerSampleSize":10,"CircuitBreakerTimeoutSeconds":30,"AcknowledgmentTimeout":"1m30s","BatchSizeLimit":1000,"RecordRetentionDays":30,"DeadLetterRetentionDays":0,"Features":{"Idempotency":true,"CircuitBreaker":false,"Retry":true,"PriorityQueues":false,"Batch":true,"Acknowledgment":true,"RetryWorker":true}}}
	// third retry after 20s fourth: false
	// remembered for 24h0m0s breaker: false
}

// All faults are told at once, each with its key or variable.
func ExampleSettingsError() {
	_, err := delivery.ParseSettings(
		[]byte(`{"MessageReliability": {"MaxRetries": 2.5, "MaxRetryDelaySeconds": 1, "Features": {"Batch": "yes"}}}`),
		[]string{"MessageReliability__BatchSizeLimit=0"},
	)
	fmt.Println(err)
	fmt.Println(errors.Is(err, delivery.ErrConfig))
	// Output:
	// delivery: setting MessageReliability.MaxRetries is 2.5, want a whole number from 0 to 1000
	// delivery: setting MessageReliability.Features.Batch is a string, want true or false
	// delivery: setting MessageReliability__BatchSizeLimit is "0", want a whole number from 1 to 1000000
	// delivery: setting MessageReliability.BaseRetryDelay is 5s, want at most MaxRetryDelaySeconds (1s)
	// true
}
