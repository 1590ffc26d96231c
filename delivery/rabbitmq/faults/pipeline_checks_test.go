package faults

import (
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

// attemptsOf are the attempts of a message that the handler saw, in order.
func (p *pipeline) attemptsOf(id string) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts[id])
}

// attemptsCounted is how many messages the handler saw with a second attempt.
func (p *pipeline) attemptsCounted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for _, numbers := range p.attempts {
		if slices.Max(numbers) > 1 {
			count++
		}
	}
	return count
}

// countDeadLetters writes the dead letters into the ledger. The rows make malformed
// messages whose body is their ID.
func (p *pipeline) countDeadLetters() {
	p.Helper()
	for _, letter := range p.deadLetters() {
		if letter.Reason == delivery.ReasonMalformed {
			p.ledger.DeadLetter(string(letter.Raw))
		} else {
			p.ledger.DeadLetter(letter.Envelope.ID)
		}
	}
}

func (p *pipeline) deadLetters() []dlq.Entry {
	p.Helper()
	var all []dlq.Entry
	query := dlq.Query{Limit: dlq.MaxLimit}
	for {
		page, err := p.manager.List(p.ctx, query)
		require.NoError(p, err)
		all = append(all, page.Entries...)
		if query.Cursor = page.Next; page.Next == "" {
			return all
		}
	}
}

// counter is a counter's total.
func (p *pipeline) counter(name string, labels ...string) int {
	value, _ := p.metrics.Value(name, labels...)
	return int(value)
}

// outcome is how many receipts had that outcome.
func (p *pipeline) outcome(outcome string) int {
	return p.counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, outcome)
}

// keyAnswers is how often the idempotency store answered so.
func (p *pipeline) keyAnswers(result string) int {
	return p.counter(metrics.IdempotencyTotal, metrics.LabelResult, result)
}

// checkCopies checks that so many breaks led to no more second copies than there may
// have been messages in flight. They were suppressed by the idempotency store.
func (p *pipeline) checkCopies(breaks int) {
	p.Helper()
	copies := p.keyAnswers(metrics.IdempotencyDuplicate) + p.keyAnswers(metrics.IdempotencyStale)
	assert.LessOrEqual(p, copies, breaks*maxInFlight, "more second copies than W + U = %d for each of %d breaks", maxInFlight, breaks)
	p.note("%d second copies suppressed (W + U = %d)", copies, breaks*maxInFlight)
}

// awaitNoAcks waits until the pipeline acks nothing any more, and checks that it stays
// so for d.
func (p *pipeline) awaitNoAcks(d time.Duration) {
	p.Helper()
	p.awaitUnchanged(func() int { return p.outcome(metrics.OutcomeDelivered) + p.outcome(metrics.OutcomeDuplicate) },
		70, d, "messages acked meanwhile")
}

// awaitUnchanged waits until a number was the same for so many looks, 10 ms apart, so
// that what was under way has ended. Then it checks that the number stays the same
// for d. It counts looks, not time: a machine that is too busy to look is too busy
// to change the number.
func (p *pipeline) awaitUnchanged(number func() int, looks int, d time.Duration, otherwise string) {
	p.Helper()
	last, same := number(), 0
	p.eventually(func() bool {
		if now := number(); now != last {
			last, same = now, 0
		}
		same++
		return same > looks
	}, otherwise)
	p.wait(d)
	assert.Equal(p, last, number(), otherwise)
}

// disconnects is how often a connection or channel was lost, for publishing,
// consuming, or both.
func (p *pipeline) disconnects(purpose string) int {
	return p.log.count("broker connection lost", "purpose="+purpose) + p.log.count("broker channel lost", "purpose="+purpose)
}

// awaitEmpty waits until nothing is queued.
func (p *pipeline) awaitEmpty() {
	p.Helper()
	p.eventually(p.isEmpty, "the queues don't become empty")
}

func (p *pipeline) isEmpty() bool {
	depths, err := p.transport.Depth(p.ctx)
	waiting := int64(0)
	for _, depth := range depths {
		waiting += depth.Messages
	}
	return err == nil && waiting == 0
}
