package dlq

import (
	"context"
	"fmt"

	"github.com/esh3artech/barid/delivery"
)

// JobStore keeps jobs. A Manager whose Store is a JobStore too can run them.
// Memory is one. The suite dlqtest.TestJobStore is this contract as tests.
//
// There are few jobs: at most MaxRunningJobs that are not finished, and about
// KeptJobs that are. A store needs to understand nothing of a job but ID,
// Version and CreatedAt, and may keep the rest as JSON. The rules of Store hold
// here too: any number of goroutines and processes at once, nothing retained or
// shared, no clock read, and the error of a ctx that has ended.
type JobStore interface {
	// SaveJob returns nil when job is durable, with its Version raised by one.
	//
	// A job with Version 0 is new. It is ErrJobChanged when there is one with its
	// ID. A job with another Version replaces the one with its ID. It is
	// ErrJobChanged when that has a different Version, and ErrJobNotFound when
	// there is none. Comparing and replacing is one step: of several calls at once
	// with the same Version, one succeeds. The error of CheckJob is returned.
	SaveJob(ctx context.Context, job Job) error

	// Job returns a job as it was saved, or ErrJobNotFound.
	Job(ctx context.Context, id string) (Job, error)

	// Jobs returns all jobs in the order of CompareJobs.
	Jobs(ctx context.Context) ([]Job, error)

	// DeleteJobs deletes jobs, whatever their Version. An id without a job is no
	// error.
	DeleteJobs(ctx context.Context, ids ...string) error
}

// CheckJob returns ErrInvalid for a job without an ID or with a negative
// Version. Stores call it in SaveJob.
func CheckJob(job *Job) error {
	switch {
	case job.ID == "":
		return fmt.Errorf("%w: Job.ID is empty", ErrInvalid)
	case job.Version < 0:
		return fmt.Errorf("%w: Job.Version is %d, want at least 0", ErrInvalid, job.Version)
	}
	return nil
}

// CompareJobs orders jobs as JobStore.Jobs does: newest first by CreatedAt, and
// by ID, the greater one first, where that is the same.
func CompareJobs(a, b Job) int {
	return delivery.Position{At: b.CreatedAt, ID: b.ID}.Compare(delivery.Position{At: a.CreatedAt, ID: a.ID})
}
