package dlq

import (
	"encoding/json"
	"strconv"
	"time"

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
// "base64:" and its bytes in base64. So is one that begins with "base64:" by
// itself.
func (e Entry) MarshalJSON() ([]byte, error) {
	stored := entryJSON{
		ID:            encodeText(e.ID),
		Message:       newMessageJSON(&e.Envelope.Message),
		Attempts:      e.Envelope.Attempt,
		Generation:    e.Envelope.Generation,
		Raw:           e.Raw,
		Reason:        encodeText(string(e.Reason)),
		Error:         encodeText(e.Error),
		Fingerprint:   encodeText(e.Fingerprint),
		Source:        encodeText(e.Source),
		Facts:         mapTexts(e.Facts, encodeText),
		FirstFailedAt: e.FirstFailedAt.UTC(),
		DeadAt:        e.DeadAt.UTC(),
	}
	for _, failure := range e.Envelope.History {
		failure.At = failure.At.UTC()
		failure.Error = encodeText(failure.Error)
		stored.History = append(stored.History, failure)
	}
	return json.Marshal(stored)
}

func newMessageJSON(message *delivery.Message) messageJSON {
	return messageJSON{
		ID:             encodeText(message.ID),
		IdempotencyKey: encodeText(message.IdempotencyKey),
		Recipient:      encodeText(message.Recipient),
		Subject:        encodeText(message.Subject),
		Type:           encodeText(message.Type),
		Body:           message.Body,
		ContentType:    encodeText(message.ContentType),
		Headers:        mapTexts(message.Headers, encodeText),
		Priority:       priorityText(message.Priority),
		CreatedAt:      message.CreatedAt.UTC(),
		NotBefore:      message.NotBefore.UTC(),
		ExpiresAt:      message.ExpiresAt.UTC(),
		RequireAck:     message.RequireAck,
	}
}

// UnmarshalJSON implements json.Unmarshaler. It ignores fields that it does not
// know.
func (e *Entry) UnmarshalJSON(data []byte) error {
	var stored entryJSON
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	var texts textDecoder
	message, err := stored.Message.message(&texts)
	if err != nil {
		return err
	}
	entry := Entry{
		ID:            texts.decode(stored.ID),
		Envelope:      delivery.Envelope{Message: message, Attempt: stored.Attempts, Generation: stored.Generation},
		Raw:           stored.Raw,
		Reason:        delivery.Reason(texts.decode(stored.Reason)),
		Error:         texts.decode(stored.Error),
		Fingerprint:   texts.decode(stored.Fingerprint),
		Source:        texts.decode(stored.Source),
		Facts:         mapTexts(stored.Facts, texts.decode),
		FirstFailedAt: stored.FirstFailedAt.UTC(),
		DeadAt:        stored.DeadAt.UTC(),
	}
	for _, failure := range stored.History {
		failure.At = failure.At.UTC()
		failure.Error = texts.decode(failure.Error)
		entry.Envelope.History = append(entry.Envelope.History, failure)
	}
	if texts.err != nil {
		return texts.err
	}
	*e = entry
	return nil
}

// message fails for a priority that is none. Whether a text could be decoded is
// texts.err.
func (m *messageJSON) message(texts *textDecoder) (delivery.Message, error) {
	priority, err := parsePriority(m.Priority)
	return delivery.Message{
		ID:             texts.decode(m.ID),
		IdempotencyKey: texts.decode(m.IdempotencyKey),
		Recipient:      texts.decode(m.Recipient),
		Subject:        texts.decode(m.Subject),
		Type:           texts.decode(m.Type),
		Body:           m.Body,
		ContentType:    texts.decode(m.ContentType),
		Headers:        mapTexts(m.Headers, texts.decode),
		Priority:       priority,
		CreatedAt:      m.CreatedAt.UTC(),
		NotBefore:      m.NotBefore.UTC(),
		ExpiresAt:      m.ExpiresAt.UTC(),
		RequireAck:     m.RequireAck,
	}, err
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
