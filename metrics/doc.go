// Package metrics is how barid is watched. Every part of the library reports to a
// Recorder, which is a small contract. A Collector is a Recorder that keeps the
// figures in the process and returns them as a Snapshot.
//
// A Recorder gives instruments: counters, histograms and gauges. They are bound to
// their name and labels once, when a publisher, a consumer or a manager is made, so
// that counting a message costs neither a map look-up nor an allocation.
//
// Reading the clock costs more than the rest of counting. A caller that has just
// read it therefore passes the time on, see Timed.
//
// Without a Recorder nothing is kept: Guarded turns nil into Discard.
//
// # Names
//
// The names follow Prometheus' conventions: the unit is part of the name,
// durations are in seconds, and the name of a counter ends in _total.
//
//	barid_messages_published_total{priority,outcome}  counter    messages given to Publish, by what became of them
//	barid_messages_processed_total{outcome}           counter    messages received, by what became of them
//	barid_handler_seconds                             histogram  one run of the handler
//	barid_publish_seconds                             histogram  from Publish's call to its return
//	barid_queue_wait_seconds                          histogram  from a message's creation to its first receipt
//	barid_retries_total{class}                        counter    attempts that failed and are tried again
//	barid_attempts_to_success                         histogram  attempts that a delivered message needed, 1 is the first
//	barid_dead_letters_total{reason}                  counter    messages given up
//	barid_dead_letters                                gauge      dead letters that are kept
//	barid_dead_letters_purged_total                   counter    dead letters deleted after their retention
//	barid_records_purged_total{queue}                 counter    records deleted after their retention
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
// A Collector keeps totals since it was made, and rates and distributions over a
// sliding window, of 60 s unless configured. A rate since the start would never
// show that an outage has begun, nor that it is over. The window moves in steps of
// a sixth of its length, so it covers between five and six sixths of that. It needs
// no goroutine.
//
// # Errors
//
// Reporting can't fail. What is wrong with a CollectorConfig is returned by
// Collector.Err and matches ErrConfig; the Collector then uses defaults in place of
// the faulty fields.
package metrics
