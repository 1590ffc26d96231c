// Package metrics says how barid is watched: a small Recorder contract that
// every part of the library reports to, and a Collector that keeps the figures
// in process and tells them as a Snapshot.
//
// A Recorder hands out instruments: counters, histograms and gauges. They are
// bound to their name and labels once, when a publisher, a consumer or a
// manager is made, so that counting a message costs neither a map look-up nor
// an allocation. Who has just read the clock passes the time on, see Timed: that
// is the dearer half of counting. Who wants no metrics leaves the Recorder out:
// OrDiscard turns nil into Discard.
//
// # Names
//
// The names follow Prometheus' conventions: the unit is part of the name,
// durations are in seconds, and what only grows ends in _total.
//
//	barid_messages_published_total{priority,outcome}  counter    what became of messages given to Publish
//	barid_messages_processed_total{outcome}           counter    what became of messages received
//	barid_handler_seconds                             histogram  one run of the handler
//	barid_publish_seconds                             histogram  from Publish's call to its return
//	barid_queue_wait_seconds                          histogram  from a message's creation to its first receipt
//	barid_retries_total{class}                        counter    attempts that failed and are tried again
//	barid_attempts_to_success                         histogram  attempts that a delivered message needed, 1 is the first
//	barid_dead_letters_total{reason}                  counter    messages given up
//	barid_dead_letters                                gauge      dead letters that are kept
//	barid_queue_depth{priority}                       gauge      messages that wait
//	barid_queue_oldest_seconds{priority}              gauge      age of the oldest that waits
//	barid_breaker_state{name}                         gauge      0 closed, 1 half-open, 2 open
//	barid_breaker_transitions_total{name,to}          counter    state changes
//	barid_idempotency_total{result}                   counter    answers of the idempotency store
//	barid_ack_seconds                                 histogram  from sent to the end user's acknowledgment
//	barid_ack_timeouts_total                          counter    acknowledgments that did not come in time
//	barid_dependency_up{dependency}                   gauge      1 reachable, 0 not
//
// # Windows
//
// A Collector keeps totals since it was made, and rates and times over a
// sliding window (60 s unless configured): a rate since the start would never
// show that an outage began, nor that it is over. The window moves in steps of
// a sixth of its length, so it covers between five and six sixths of it. No
// goroutine is needed for that.
//
// # Errors
//
// Reporting can't fail. A CollectorConfig that can't be used is told by
// Collector.Err, as an ErrConfig; the Collector then works with the defaults.
//
// # Usage
//
//	collector := metrics.NewCollector(metrics.CollectorConfig{})
//	processed := collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered)
//	processed.Add(1)
//	fmt.Println(collector.Snapshot().ProcessedPerSecond)
package metrics
