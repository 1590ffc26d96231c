package retry_test

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/esh3artech/barid/retry"
)

func ExampleExponential() {
	policy := retry.Exponential{Base: time.Second, Max: 5 * time.Second, MaxRetries: 4}
	for n := 0; policy.CanRetry(n); n++ {
		fmt.Println(policy.Delay(n))
	}
	// Output:
	// 1s
	// 2s
	// 4s
	// 5s
}

func ExampleClassifier() {
	errNoCredit := errors.New("no credit")
	classifier := retry.Classifier{Rules: []retry.Rule{
		func(err error) (retry.Class, bool) { return retry.ClassPermanent, errors.Is(err, errNoCredit) },
	}}
	fmt.Println(classifier.Classify(fmt.Errorf("send: %w", errNoCredit)))
	fmt.Println(classifier.Classify(&retry.HTTPError{Status: http.StatusBadGateway}))
	fmt.Println(classifier.Classify(errors.New("no idea")))
	// Output:
	// permanent
	// recoverable
	// recoverable
}

func ExamplePermanent() {
	err := fmt.Errorf("send: %w", retry.Permanent(errors.New("no such number")))
	fmt.Println(err)
	fmt.Println(retry.Classifier{}.Classify(err))
	// Output:
	// send: no such number
	// permanent
}

func ExampleAfter() {
	err := fmt.Errorf("send: %w", retry.After(time.Minute, errors.New("too many")))
	fmt.Println(retry.DelayOf(err))
	// Output: 1m0s true
}

func ExampleFromResponse() {
	response := &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"30"}}}
	err := retry.FromResponse(response)
	fmt.Println(err)
	fmt.Println(retry.DelayOf(err))
	// Output:
	// retry: HTTP status 503 Service Unavailable, retry after 30s
	// 30s true
}
