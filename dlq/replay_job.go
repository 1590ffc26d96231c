package dlq

import (
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// JobStatus is the state of a Job.
type JobStatus string

// The statuses.
const (
	// JobRunning: the job has not passed all entries. Job.Owner says whether a
	// runner has it right now.
	JobRunning JobStatus = "running"
	// JobDone: the job has passed all entries.
	JobDone JobStatus = "done"
	// JobCancelled: CancelReplay ended it before that.
	JobCancelled JobStatus = "cancelled"
)

// Job is a bulk replay: which entries, how fast, and how far it is. Its JSON
// form is complete and stable, so that stores may keep jobs as JSON.
type Job struct {
	ID string
	// Filter picks the entries. Its Until is CreatedAt at the latest. So the job
	// comes to an end while more is given up. See Sends for what it sent
	// and what failed again.
	Filter Filter
	// Rate is how many entries are sent per second at most. 0 is no limit.
	Rate   float64
	Status JobStatus

	// Total is how many entries the filter picked when the job began. In the end
	// the three counts below add up to it, unless others put, requeued or deleted
	// entries meanwhile.
	Total int
	// Requeued entries were sent and confirmed.
	Requeued int
	// Skipped entries were gone when it was their turn, were being requeued by
	// someone else, or were put again so that Filter no longer picks them.
	Skipped int
	// Failed entries can't be sent, such as malformed ones. They are still kept.
	Failed int
	// LastError is the text of what last went wrong with an entry, the transport
	// or the store. It is empty when nothing did. It says why a job waits. At most
	// 500 bytes.
	LastError string
	// After is the position of the last entry that the job has passed, the oldest
	// being the first. An empty After.ID means none.
	After delivery.Position
	// Sends is the generation of what the job sends at present, which it makes of the
	// entries of the one below. It begins with the highest and goes down, each time
	// from the oldest entry on. What it sent and what failed again is of a generation
	// that it has passed, so that it sends nothing twice, whatever the clocks say. 0
	// means that it only looks yet which generation is the highest. 101 stands for all
	// from 101 on.
	Sends int
	// SendsNext is the generation that it sends afterwards, by what it has met until
	// After. 0 means none.
	SendsNext int
	// NextAt is when the next entry may be sent according to Rate, so that the
	// rate holds over a change of runners. It is zero without a Rate, and before
	// the first batch.
	NextAt time.Time

	// CreatedAt is when the job was started, UpdatedAt when it was last saved,
	// FinishedAt when it was done or cancelled. UTC, in whole microseconds, as
	// are all times here.
	CreatedAt  time.Time
	UpdatedAt  time.Time
	FinishedAt time.Time

	// Owner is the token of the runner that has the job, empty for none. No other
	// runner takes the job before LeaseUntil. The owner renews it. After a
	// cancellation there is an owner for the moment that it takes to finish the
	// batch in hand, and to count it.
	Owner      string
	LeaseUntil time.Time

	// Version counts how often the job was saved. SaveJob compares it.
	Version int64
}

// maxLastError bounds Job.LastError, in bytes.
const maxLastError = 500

// Finished reports whether the job is done or cancelled.
func (j *Job) Finished() bool { return j.Status != JobRunning }

// free reports whether a runner may take the job.
func (j *Job) free(now time.Time) bool {
	return !j.Finished() && (j.Owner == "" || !now.Before(j.LeaseUntil))
}

func (j *Job) setLastError(err error) {
	text := err.Error()
	j.LastError = strings.ToValidUTF8(text[:min(len(text), maxLastError)], "")
}
