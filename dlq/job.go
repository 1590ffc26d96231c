package dlq

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// JobStatus is how far a Job is.
type JobStatus string

// The statuses.
const (
	// JobRunning: there is something left to do. Job.Owner says whether somebody
	// does it right now.
	JobRunning JobStatus = "running"
	// JobDone: the job has passed all entries.
	JobDone JobStatus = "done"
	// JobCancelled: somebody cancelled it before that.
	JobCancelled JobStatus = "cancelled"
)

// Job is a bulk replay: which entries, how fast, and how far it is. Its JSON
// form is complete and stable: stores may keep it.
type Job struct {
	ID string
	// Filter picks the entries. Its Until is CreatedAt at the latest, so that
	// what dies after the job began, and what it sent and fails again, is not
	// the job's.
	Filter Filter
	// Rate is how many entries are sent per second at most; 0 is no bound.
	Rate   float64
	Status JobStatus

	// Total is how many entries the filter picked when the job began. The three
	// counts below add up to it unless entries come and go by other ways.
	Total int
	// Requeued entries were sent and confirmed.
	Requeued int
	// Skipped entries were being requeued by someone else when it was their
	// turn, were put again with other properties, or were gone.
	Skipped int
	// Failed entries can't be sent, such as malformed ones. They are still kept.
	Failed int
	// LastError is the text of what last went wrong with an entry, the transport
	// or the store; empty when nothing did. A job that waits for a transport
	// tells it here. At most MaxLastError bytes.
	LastError string
	// After is the last entry that the job has passed, oldest first; an empty
	// After.ID means none. What is left lies behind it.
	After delivery.Position
	// NextAt is before when nothing more is sent, as Rate has it, so that the cap
	// holds over a change of runners. Zero without a Rate, and before the first
	// batch.
	NextAt time.Time

	// CreatedAt is when it was started, UpdatedAt when its record last changed,
	// FinishedAt when it was done or cancelled. UTC, in whole microseconds, as
	// are all times here.
	CreatedAt  time.Time
	UpdatedAt  time.Time
	FinishedAt time.Time

	// Owner is the token of the runner that works at it, empty for none. No
	// other runner touches the job before LeaseUntil, which the owner keeps
	// pushing on. After a cancellation the owner stays for the moment that it
	// takes to finish what it has in hand, and to count it.
	Owner      string
	LeaseUntil time.Time

	// Version counts the changes of the record, from 1. A JobStore compares it.
	Version int64
}

// MaxLastError bounds Job.LastError, in bytes.
const MaxLastError = 500

// Finished says that nobody will begin anything for the job any more.
func (j *Job) Finished() bool { return j.Status != JobRunning }

// free says that a runner may take the job.
func (j *Job) free(now time.Time) bool {
	return !j.Finished() && (j.Owner == "" || !now.Before(j.LeaseUntil))
}

func (j *Job) fail(err error) {
	text := err.Error()
	j.LastError = strings.ToValidUTF8(text[:min(len(text), MaxLastError)], "")
}

// JobStore keeps jobs. A Store that is a JobStore too makes a Manager able to
// run them; Memory is one. The suite dlqtest.TestJobStore is this contract as
// tests.
//
// There are few jobs: some that are not finished, and the last KeptJobs that
// are. A store needs to understand nothing of a job but ID, Version and
// CreatedAt, and may keep the rest as JSON. The rules of Store hold: any number
// of goroutines and processes at once, nothing retained or shared, no clock
// read, a ctx that has ended is its error.
type JobStore interface {
	// SaveJob returns nil when job is durable, with its Version raised by one.
	// A job with Version 0 is new: ErrJobChanged when there is one with its ID.
	// Any other replaces the one with its ID if that has the same Version:
	// ErrJobChanged when it has another, ErrJobNotFound when it is not there.
	// Compare and change are one step: of several calls at once with the same
	// Version one wins. Without an ID, or with a negative Version, it is
	// ErrInvalid.
	SaveJob(ctx context.Context, job Job) error

	// Job returns a job as it was saved, or ErrJobNotFound.
	Job(ctx context.Context, id string) (Job, error)

	// Jobs returns all jobs, newest first by CreatedAt, and by ID among equals,
	// the smaller one last.
	Jobs(ctx context.Context) ([]Job, error)

	// DeleteJobs deletes jobs, whatever their Version. An id that is not there
	// is no error.
	DeleteJobs(ctx context.Context, ids ...string) error
}

// CheckJob returns ErrInvalid for a job that no JobStore takes.
func CheckJob(job *Job) error {
	switch {
	case job.ID == "":
		return fmt.Errorf("%w: Job.ID is empty", ErrInvalid)
	case job.Version < 0:
		return fmt.Errorf("%w: Job.Version is %d, want at least 0", ErrInvalid, job.Version)
	}
	return nil
}

// CompareJobs orders jobs as Jobs does: newest first.
func CompareJobs(a, b Job) int {
	return delivery.Position{At: b.CreatedAt, ID: b.ID}.Compare(delivery.Position{At: a.CreatedAt, ID: a.ID})
}
