package dlq

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// jobJSON is the stored form of a Job. Fields may be added; none may change its
// meaning.
type jobJSON struct {
	ID         string        `json:"id"`
	Filter     filterJSON    `json:"filter"`
	Rate       float64       `json:"rate,omitempty"`
	Status     string        `json:"status"`
	Total      int           `json:"total"`
	Requeued   int           `json:"requeued"`
	Skipped    int           `json:"skipped"`
	Failed     int           `json:"failed"`
	LastError  string        `json:"last_error,omitempty"`
	After      *positionJSON `json:"after,omitempty"`
	NextAt     time.Time     `json:"next_at,omitzero"`
	Sends      int           `json:"sends,omitempty"`
	SendsNext  int           `json:"sends_next,omitempty"`
	CreatedAt  time.Time     `json:"created_at"`
	UpdatedAt  time.Time     `json:"updated_at,omitzero"`
	FinishedAt time.Time     `json:"finished_at,omitzero"`
	Owner      string        `json:"owner,omitempty"`
	LeaseUntil time.Time     `json:"lease_until,omitzero"`
	Version    int64         `json:"version"`
}

type filterJSON struct {
	Reason      string    `json:"reason,omitempty"`
	Recipient   string    `json:"recipient,omitempty"`
	Type        string    `json:"type,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Source      string    `json:"source,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	Until       time.Time `json:"until,omitzero"`
}

type positionJSON struct {
	At time.Time `json:"at"`
	ID string    `json:"id"`
}

// MarshalJSON implements json.Marshaler. Times are in UTC. A string that is not
// UTF-8 is written as in an Entry.
func (j Job) MarshalJSON() ([]byte, error) {
	stored := jobJSON{
		ID: encodeText(j.ID),
		Filter: filterJSON{
			Reason:      encodeText(string(j.Filter.Reason)),
			Recipient:   encodeText(j.Filter.Recipient),
			Type:        encodeText(j.Filter.Type),
			Fingerprint: encodeText(j.Filter.Fingerprint),
			Source:      encodeText(j.Filter.Source),
			Since:       j.Filter.Since.UTC(),
			Until:       j.Filter.Until.UTC(),
		},
		Rate:       j.Rate,
		Status:     encodeText(string(j.Status)),
		Total:      j.Total,
		Requeued:   j.Requeued,
		Skipped:    j.Skipped,
		Failed:     j.Failed,
		LastError:  encodeText(j.LastError),
		NextAt:     j.NextAt.UTC(),
		Sends:      j.Sends,
		SendsNext:  j.SendsNext,
		CreatedAt:  j.CreatedAt.UTC(),
		UpdatedAt:  j.UpdatedAt.UTC(),
		FinishedAt: j.FinishedAt.UTC(),
		Owner:      encodeText(j.Owner),
		LeaseUntil: j.LeaseUntil.UTC(),
		Version:    j.Version,
	}
	if j.After.ID != "" {
		stored.After = &positionJSON{At: j.After.At.UTC(), ID: encodeText(j.After.ID)}
	}
	return json.Marshal(stored)
}

// UnmarshalJSON implements json.Unmarshaler. It ignores fields that it does not
// know. What no Manager could have written is an error: taken for a job, it
// could send entries that nobody picked.
func (j *Job) UnmarshalJSON(data []byte) error {
	var stored jobJSON
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	var texts textDecoder
	job := Job{
		ID: texts.decode(stored.ID),
		Filter: Filter{
			Reason:      delivery.Reason(texts.decode(stored.Filter.Reason)),
			Recipient:   texts.decode(stored.Filter.Recipient),
			Type:        texts.decode(stored.Filter.Type),
			Fingerprint: texts.decode(stored.Filter.Fingerprint),
			Source:      texts.decode(stored.Filter.Source),
			Since:       stored.Filter.Since.UTC(),
			Until:       stored.Filter.Until.UTC(),
		},
		Rate:       stored.Rate,
		Status:     JobStatus(texts.decode(stored.Status)),
		Total:      stored.Total,
		Requeued:   stored.Requeued,
		Skipped:    stored.Skipped,
		Failed:     stored.Failed,
		LastError:  texts.decode(stored.LastError),
		NextAt:     stored.NextAt.UTC(),
		Sends:      stored.Sends,
		SendsNext:  stored.SendsNext,
		CreatedAt:  stored.CreatedAt.UTC(),
		UpdatedAt:  stored.UpdatedAt.UTC(),
		FinishedAt: stored.FinishedAt.UTC(),
		Owner:      texts.decode(stored.Owner),
		LeaseUntil: stored.LeaseUntil.UTC(),
		Version:    stored.Version,
	}
	if stored.After != nil {
		job.After = delivery.Position{At: stored.After.At.UTC(), ID: texts.decode(stored.After.ID)}
	}
	switch {
	case texts.err != nil:
		return texts.err
	case job.ID == "" || job.Status == "" || job.Version < 0:
		return errors.New("dlq: decode job: it has no id, no status or a negative version")
	case job.Sends < 0 || job.SendsNext < 0:
		return fmt.Errorf("dlq: decode job: it sends generations %d and %d", job.Sends, job.SendsNext)
	case job.Rate < 0 || math.IsInf(job.Rate, 0):
		return fmt.Errorf("dlq: decode job: rate is %v", job.Rate)
	}
	*j = job
	return nil
}
