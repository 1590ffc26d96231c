package dlq

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/esh3artech/barid/delivery"
)

// entryJSON is the stored form of an Entry. Fields may be added; none may
// change its meaning.
type entryJSON struct {
	ID            string             `json:"id"`
	Message       messageJSON        `json:"message"`
	Attempts      int                `json:"attempts"`
	Generation    int                `json:"generation"`
	History       []delivery.Failure `json:"history,omitempty"`
	Raw           []byte             `json:"raw,omitempty"`
	Reason        string             `json:"reason"`
	Error         string             `json:"error"`
	Fingerprint   string             `json:"fingerprint"`
	Source        string             `json:"source"`
	Facts         map[string]string  `json:"facts,omitempty"`
	FirstFailedAt time.Time          `json:"first_failed_at"`
	DeadAt        time.Time          `json:"dead_at"`
}

type messageJSON struct {
	ID             string            `json:"id"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	Recipient      string            `json:"recipient"`
	Subject        string            `json:"subject,omitempty"`
	Type           string            `json:"type,omitempty"`
	Body           []byte            `json:"body,omitempty"`
	ContentType    string            `json:"content_type,omitempty"`
	Headers        map[string]string `json:"headers,omitempty"`
	Priority       string            `json:"priority"`
	CreatedAt      time.Time         `json:"created_at,omitzero"`
	NotBefore      time.Time         `json:"not_before,omitzero"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero"`
	RequireAck     bool              `json:"require_ack,omitempty"`
}

// MarshalJSON implements json.Marshaler. Body and Raw are in base64, times in
// UTC. A string that is not UTF-8, which JSON can't hold, is written as
// "base64:" and its bytes in base64; so is one that begins with "base64:" by
// itself.
func (e Entry) MarshalJSON() ([]byte, error) {
	message := &e.Envelope.Message
	stored := entryJSON{
		ID: armor(e.ID),
		Message: messageJSON{
			ID:             armor(message.ID),
			IdempotencyKey: armor(message.IdempotencyKey),
			Recipient:      armor(message.Recipient),
			Subject:        armor(message.Subject),
			Type:           armor(message.Type),
			Body:           message.Body,
			ContentType:    armor(message.ContentType),
			Headers:        mapText(message.Headers, armor),
			Priority:       priorityText(message.Priority),
			CreatedAt:      message.CreatedAt.UTC(),
			NotBefore:      message.NotBefore.UTC(),
			ExpiresAt:      message.ExpiresAt.UTC(),
			RequireAck:     message.RequireAck,
		},
		Attempts:      e.Envelope.Attempt,
		Generation:    e.Envelope.Generation,
		Raw:           e.Raw,
		Reason:        armor(string(e.Reason)),
		Error:         armor(e.Error),
		Fingerprint:   armor(e.Fingerprint),
		Source:        armor(e.Source),
		Facts:         mapText(e.Facts, armor),
		FirstFailedAt: e.FirstFailedAt.UTC(),
		DeadAt:        e.DeadAt.UTC(),
	}
	for _, failure := range e.Envelope.History {
		failure.At = failure.At.UTC()
		failure.Error = armor(failure.Error)
		stored.History = append(stored.History, failure)
	}
	return json.Marshal(stored)
}

// UnmarshalJSON implements json.Unmarshaler. Fields that it does not know are
// passed over.
func (e *Entry) UnmarshalJSON(data []byte) error {
	var stored entryJSON
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	priority, err := parsePriority(stored.Message.Priority)
	if err != nil {
		return err
	}
	var a unarmorer
	entry := Entry{
		ID: a.text(stored.ID),
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID:             a.text(stored.Message.ID),
				IdempotencyKey: a.text(stored.Message.IdempotencyKey),
				Recipient:      a.text(stored.Message.Recipient),
				Subject:        a.text(stored.Message.Subject),
				Type:           a.text(stored.Message.Type),
				Body:           stored.Message.Body,
				ContentType:    a.text(stored.Message.ContentType),
				Headers:        mapText(stored.Message.Headers, a.text),
				Priority:       priority,
				CreatedAt:      stored.Message.CreatedAt.UTC(),
				NotBefore:      stored.Message.NotBefore.UTC(),
				ExpiresAt:      stored.Message.ExpiresAt.UTC(),
				RequireAck:     stored.Message.RequireAck,
			},
			Attempt:    stored.Attempts,
			Generation: stored.Generation,
		},
		Raw:           stored.Raw,
		Reason:        delivery.Reason(a.text(stored.Reason)),
		Error:         a.text(stored.Error),
		Fingerprint:   a.text(stored.Fingerprint),
		Source:        a.text(stored.Source),
		Facts:         mapText(stored.Facts, a.text),
		FirstFailedAt: stored.FirstFailedAt.UTC(),
		DeadAt:        stored.DeadAt.UTC(),
	}
	for _, failure := range stored.History {
		failure.At = failure.At.UTC()
		failure.Error = a.text(failure.Error)
		entry.Envelope.History = append(entry.Envelope.History, failure)
	}
	if a.err != nil {
		return a.err
	}
	*e = entry
	return nil
}

// mapText is texts with f done to every key and value, nil when there are none.
func mapText(texts map[string]string, f func(string) string) map[string]string {
	if len(texts) == 0 {
		return nil
	}
	mapped := make(map[string]string, len(texts))
	for key, value := range texts {
		mapped[f(key)] = f(value)
	}
	return mapped
}

const armored = "base64:"

func armor(text string) string {
	if utf8.ValidString(text) && !strings.HasPrefix(text, armored) {
		return text
	}
	return armored + base64.StdEncoding.EncodeToString([]byte(text))
}

// unarmorer undoes armor and remembers the first failure.
type unarmorer struct{ err error }

func (a *unarmorer) text(text string) string {
	encoded, found := strings.CutPrefix(text, armored)
	if !found {
		return text
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("dlq: decode entry: %w", err)
	}
	return string(decoded)
}

// priorityText is the priority's name, or its number where it has none: a
// malformed message may have any.
func priorityText(priority delivery.Priority) string {
	if priority.Valid() {
		return priority.String()
	}
	return strconv.Itoa(int(priority))
}

func parsePriority(text string) (delivery.Priority, error) {
	if number, err := strconv.ParseInt(text, 10, 8); err == nil {
		return delivery.Priority(number), nil
	}
	return delivery.ParsePriority(text)
}
