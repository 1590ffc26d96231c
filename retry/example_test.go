package retry_test

import (
	"context"
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

// A failed delivery is scheduled again, if that can help and is allowed.
func Example() {
	policy := retry.Exponential{Base: time.Second, MaxRetries: 3}
	var classifier retry.Classifier
	n := 2 // retries so far, as the host has stored it

	err := retry.After(time.Minute, errors.New("too many requests"))
	if classifier.Classify(err) != retry.ClassPermanent && policy.CanRetry(n) {
		wait := policy.Delay(n)
		if asked, ok := retry.DelayOf(err); ok {
			wait = min(asked, time.Hour)
		}
		fmt.Println("again in", wait)
	}
	// Output: again in 1m0s
}

// A phone that is off is nobody's failure.
func ExampleLater() {
	err := retry.Later(time.Hour, errors.New("phone is off"))
	wait, _ := retry.DelayOf(err)
	fmt.Println(err, "|", retry.Classifier{}.Classify(err), "|", wait)
	// Output: phone is off | later | 1h0m0s
}

// What has no bound on its tries goes on until it works, or until nobody waits for
// it any more.
func ExampleWait() {
	connect := func(n int) error {
		if n < 2 {
			return errors.New("connection refused")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	policy := retry.Exponential{Base: time.Millisecond, Max: time.Second, Jitter: retry.JitterEqual}
	n := 0
	for connect(n) != nil {
		if !retry.Wait(ctx.Done(), policy.Delay(n)) {
			fmt.Println(ctx.Err())
			return
		}
		n++
	}
	fmt.Println("connected after", n, "retries")
	// Output: connected after 2 retries
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
