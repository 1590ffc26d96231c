package dlq

import (
	"context"
	"math/bits"
	"time"

	"github.com/esh3artech/barid/retry"
)

// topGeneration stands for itself and all generations above, lest a job have
// as many of them to pass as somebody has thought of.
const topGeneration = 15

// generations is a set of generations, see Job.Generations. A job passes them
// from the highest on. What it sends is of the next generation, so that it has
// passed that one before, and does not find there what it sent and what failed
// again. No clock has a say in it.
type generations uint16

func generationOf(entry *Entry) int { return min(max(entry.Envelope.Generation, 0), topGeneration) }

func (g *generations) add(entry *Entry) { *g |= 1 << generationOf(entry) }

// highest is -1 of none.
func (g generations) highest() int { return bits.Len16(uint16(g)) - 1 }

// lower returns g without the highest.
func (g generations) lower() generations { return g &^ (1 << max(g.highest(), 0)) }

// survey looks which generations there are. They are stored before anything is
// sent: later, there would be those that the job has made.
func (r *replayRun) survey(stopping context.Context) error {
	found, after := r.generations, r.after
	for failures, done := 0, found != 0; !done; {
		if err := r.ready(stopping, time.Now()); err != nil {
			return err
		}
		page, err := r.list(stopping, after, r.batchSize)
		if err != nil {
			if err := r.surveyFailed(stopping, failures, err); err != nil {
				return err
			}
			failures++
			continue
		}
		for i := range page.Entries {
			found.add(&page.Entries[i])
			after = positionOf(&page.Entries[i])
		}
		failures, done = 0, page.Next == "" || len(page.Entries) == 0
	}
	if found == r.generations {
		return nil
	}
	err := r.lease.persist(stopping, func(job *Job) { job.Generations = uint16(found) })
	r.generations, r.leaseUntil = found, r.lease.job.LeaseUntil
	return err
}

// surveyFailed waits before the next try. That the job waits, and why, is stored
// once.
func (r *replayRun) surveyFailed(stopping context.Context, failures int, err error) error {
	r.lease.logWait(stopping, senderWaits, failures, err)
	if failures == 0 && stopping.Err() == nil {
		if err := r.lease.persist(stopping, func(job *Job) { job.setLastError(err) }); err != nil {
			return err
		}
		r.leaseUntil = r.lease.job.LeaseUntil
	}
	retry.Wait(stopping.Done(), backoff.Delay(failures))
	return nil
}
