package metrics

// The names of all metrics of barid, with their labels and units.
const (
	// MessagesPublishedTotal counts messages given to Publish, by
	// LabelPriority and LabelOutcome (PublishAccepted and its neighbours).
	MessagesPublishedTotal = "barid_messages_published_total"
	// MessagesProcessedTotal counts messages received, by LabelOutcome
	// (OutcomeDelivered and its neighbours). Each receipt counts once.
	MessagesProcessedTotal = "barid_messages_processed_total"
	// HandlerSeconds is how long one run of the handler took, whatever came of
	// it, in seconds.
	HandlerSeconds = "barid_handler_seconds"
	// HandlersRunning is how many handlers run now, HandlersOverdue how many of
	// them go on after their timeout: each holds up a worker.
	HandlersRunning = "barid_handlers_running"
	HandlersOverdue = "barid_handlers_overdue"
	// PublishSeconds is how long a call of Publish took, in seconds.
	PublishSeconds = "barid_publish_seconds"
	// QueueWaitSeconds is how long a message waited from its creation to its
	// first receipt, in seconds.
	QueueWaitSeconds = "barid_queue_wait_seconds"
	// RetriesTotal counts attempts that failed and are tried again, by
	// LabelClass, the class of the error. Runs that follow a transient error at once
	// are part of the same attempt and do not count.
	RetriesTotal = "barid_retries_total"
	// AttemptsToSuccess is how many attempts a delivered message needed, the
	// one that succeeded included: 1 is success at once.
	AttemptsToSuccess = "barid_attempts_to_success"
	// DeadLettersTotal counts messages given up, by LabelReason.
	DeadLettersTotal = "barid_dead_letters_total"
	// DeadLetters is how many dead letters are kept now.
	DeadLetters = "barid_dead_letters"
	// Records is how many records wait in the message store, by LabelQueue, LabelStatus
	// (pending, queued, retrying or sent) and LabelPriority. Every retry worker of the
	// queue tells the same number: take the largest, not the sum.
	Records = "barid_records"
	// DeadLettersPurgedTotal counts dead letters that were deleted because they had
	// been kept for long enough. It has no labels.
	DeadLettersPurgedTotal = "barid_dead_letters_purged_total"
	// RecordsPurgedTotal counts records that were deleted because they had been kept
	// for long enough, by LabelQueue.
	RecordsPurgedTotal = "barid_records_purged_total"
	// QueueDepth is how many messages wait now, by LabelPriority.
	QueueDepth = "barid_queue_depth"
	// QueueOldestSeconds is the age of the oldest message that waits, by
	// LabelPriority, in seconds.
	QueueOldestSeconds = "barid_queue_oldest_seconds"
	// BreakerState is the state of a circuit breaker, by LabelName:
	// BreakerClosed, BreakerHalfOpen or BreakerOpen.
	BreakerState = "barid_breaker_state"
	// BreakersOpen is how many of the circuit breakers that share a name, one for
	// each key, are open or half-open, by LabelName.
	BreakersOpen = "barid_breakers_open"
	// BreakerTransitionsTotal counts a circuit breaker's changes of state, by
	// LabelName and LabelTo, the new state's name.
	BreakerTransitionsTotal = "barid_breaker_transitions_total"
	// IdempotencyTotal counts the answers of the idempotency store, by
	// LabelResult (IdempotencyClaimed and its neighbours).
	IdempotencyTotal = "barid_idempotency_total"
	// AckSeconds is how long the end user took to acknowledge, from sent to
	// acknowledged, in seconds.
	AckSeconds = "barid_ack_seconds"
	// AckTimeoutsTotal counts acknowledgments that did not come in time. It has
	// no labels.
	AckTimeoutsTotal = "barid_ack_timeouts_total"
	// DependencyUp is 1 while a dependency answers and 0 while it does not, by
	// LabelDependency.
	DependencyUp = "barid_dependency_up"
)

// The label keys.
const (
	LabelPriority   = "priority"   // a message's priority in lower case: low, normal, high, urgent
	LabelOutcome    = "outcome"    // what became of a message
	LabelClass      = "class"      // the class of an error: transient, recoverable, permanent
	LabelReason     = "reason"     // why a message was given up
	LabelName       = "name"       // a circuit breaker's name
	LabelTo         = "to"         // a circuit breaker's new state
	LabelResult     = "result"     // the idempotency store's answer
	LabelDependency = "dependency" // a dependency's name
	LabelQueue      = "queue"      // the queue that a record belongs to
	LabelStatus     = "status"     // a record's status
)

// The outcomes of MessagesProcessedTotal.
const (
	OutcomeDelivered    = "delivered"     // the handler succeeded
	OutcomeRetried      = "retried"       // the attempt failed and another is scheduled
	OutcomeDeadLettered = "dead_lettered" // given up
	OutcomeDuplicate    = "duplicate"     // handled before, not handled again
	OutcomeDeferred     = "deferred"      // put back for later, no attempt counted: breaker open, key busy, too early
	OutcomePostponed    = "postponed"     // put off by the handler (retry.Later), no attempt counted
	OutcomeAbandoned    = "abandoned"     // left for redelivery: shutdown, or no durable home for what comes next
)

// The outcomes of MessagesPublishedTotal.
const (
	PublishAccepted  = "accepted"  // durable
	PublishRejected  = "rejected"  // not sent, and known to be not sent
	PublishUnknown   = "unknown"   // may or may not be durable
	PublishDuplicate = "duplicate" // not sent, because its key was published before
)

// The results of IdempotencyTotal.
const (
	IdempotencyClaimed   = "claimed"   // new, or its turn has come
	IdempotencyDuplicate = "duplicate" // done before
	IdempotencyStale     = "stale"     // an older attempt than the one recorded
	IdempotencyBusy      = "busy"      // being handled elsewhere
	IdempotencyLost      = "lost"      // the claim went to another while the handler ran
	IdempotencyBypassed  = "bypassed"  // store down, handled without it
	IdempotencyDown      = "down"      // store down, not handled
)

// The values of BreakerState.
const (
	BreakerClosed   = 0.0
	BreakerHalfOpen = 1.0
	BreakerOpen     = 2.0
)

// The names of a breaker's states, in LabelTo and in a Snapshot.
const (
	StateClosed   = "closed"
	StateHalfOpen = "half-open"
	StateOpen     = "open"
)
