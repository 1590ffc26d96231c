package courier

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// NewHandler returns a delivery.Handler that gives each message to the provider
// at url. This is the code that a host would write: it sends, and returns what
// went wrong. retry.FromResponse makes an error of a bad status, Retry-After
// included; the rest is the pipeline's.
//
// Now and then it panics, as code does.
func NewHandler(url string) delivery.Handler {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return func(ctx context.Context, message delivery.Message) error {
		if attempt, _ := delivery.AttemptFrom(ctx); attempt.Number == 1 && chance(message.ID, "panic", 200) {
			var template *order
			_ = template.Text
		}
		body, err := json.Marshal(order{To: message.Recipient, Text: string(message.Body)})
		if err != nil {
			return retry.Permanent(err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/messages", bytes.NewReader(body))
		if err != nil {
			return retry.Permanent(err)
		}
		request.Header.Set("Idempotency-Key", message.ID)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		return retry.FromResponse(response)
	}
}
