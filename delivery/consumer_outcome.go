package delivery

import "time"

// outcome is what the stages made of a message. Nothing in it is changed later:
// what turns out differently while the message is settled is another outcome.
// What becomes of the message then planFor says.
type outcome struct {
	kind outcomeKind
	at   time.Time // when, the same however often it is tried to settle
	err  error     // why; nil where nothing went wrong

	delay  time.Duration // for how long the message must wait, from at on
	next   *Envelope     // the message as it goes on, with the failure counted if there was one
	reason Reason        // why it is given up
	raw    []byte        // the body of a malformed message
	final  bool          // overtaken: the message is done for good
	of     string        // duplicate: the ID of the other message whose duplicate it is, if it is known
}

type outcomeKind int

const (
	undecided          outcomeKind = iota // the next stage decides
	outcomeDelivered                      // the effect is done
	outcomeDuplicate                      // the effect was done before, or is another copy's to do
	outcomeFailed                         // an attempt failed, and there may be another after delay
	outcomeGivenUp                        // there is to be no further attempt
	outcomePostponed                      // no attempt was made, there is to be one after delay
	outcomeLater                          // the handler does not want it before delay is over, which is no failure
	outcomeSuspected                      // no attempt: it may end the process, which its next counts
	outcomeBusy                           // no attempt: another copy is being handled, ask again after delay
	outcomeBreakerOpen                    // no attempt: the consumer's breaker is open
	outcomeKeysDown                       // no attempt: the idempotency store could not be asked
	outcomeAbandoned                      // the attempt does not count: shutdown, the lease was lost, or the receipt is stale
	outcomeOvertaken                      // the retry is late: what becomes of the message was decided elsewhere
)
