package sqlstore_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Every feature is switched off and on again over a store that is full of life:
// from one process to the next there are messages in every state. In the end each
// is delivered, read, cancelled, or failed with its dead letter.
func TestSettingsOverALiveStore(t *testing.T) {
	everywhere(t, func(w *world) {
		l := &livelihood{world: w, kinds: map[string]kind{}, left: map[delivery.Status]int{}}
		w.handles(l.handle)
		for _, settings := range switched() {
			l.era(settings.name, settings.Settings)
			l.era("on after "+settings.name, hasty())
		}
		for _, status := range []delivery.Status{delivery.StatusPending, delivery.StatusQueued, delivery.StatusRetrying, delivery.StatusSent} {
			assert.NotZero(w.t, l.left[status], "some were %s between two processes", status)
		}
		l.conclude()
	})
}

// hasty are settings under which all is over soon.
func hasty() delivery.Settings {
	settings := delivery.DefaultSettings()
	settings.MaxRetries = 2
	settings.BaseRetryDelaySeconds = 1
	settings.AcknowledgmentTimeoutMinutes = 1
	settings.CircuitBreakerTimeoutSeconds = 1
	return settings
}

// governed has a grace that no pause of the machine outlasts: nothing is sent
// twice by this.
func governed(settings *delivery.Settings) flowConfig {
	config := brisk()
	config.publisher.PendingGrace = 3 * time.Second
	config.settings = settings
	return config
}

type namedSettings struct {
	name string
	delivery.Settings
}

// switched are settings with one feature off, for each that there is, and with
// all off.
func switched() []namedSettings {
	var all []namedSettings
	off := namedSettings{"all off", hasty()}
	off.Features = delivery.Features{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[delivery.Features]()) {
		without := namedSettings{field.Name + " off", hasty()}
		reflect.ValueOf(&without.Features).Elem().FieldByIndex(field.Index).SetBool(false)
		all = append(all, without)
	}
	return append(all, off)
}

// kind is what a message is like, and so what becomes of it.
type kind struct {
	name     string
	settings delivery.Settings // that it was published under
	ends     []delivery.Status
}

// livelihood is many messages and several processes, one after the other.
type livelihood struct {
	*world
	kinds map[string]kind // by message; written while nobody consumes
	left  map[delivery.Status]int
}

func kindOf(id string) string {
	name, _, _ := strings.Cut(id, ",")
	return name
}

func (l *livelihood) handle(m delivery.Message, run int) error {
	switch kindOf(m.ID) {
	case "bad":
		return errProvider
	case "flaky":
		if run == 1 {
			return errProvider
		}
	}
	return nil
}

// era is the time of one process: it publishes messages of every kind, handles
// some, and ends with the rest in all states.
func (l *livelihood) era(name string, settings delivery.Settings) {
	l.t.Helper()
	t, ctx, on := l.t, l.t.Context(), settings.Features
	h := l.start(governed(&settings))
	message := func(kind kind, priority delivery.Priority) delivery.Message {
		kind.settings = settings
		m := delivery.Message{ID: fmt.Sprintf("%s, %s, %s", kind.name, priority, name), Recipient: "r", Priority: priority}
		l.kinds[m.ID] = kind
		return m
	}
	done, given := []delivery.Status{delivery.StatusDelivered}, []delivery.Status{delivery.StatusFailed}
	flaky := done
	if !on.Retry {
		flaky = given
	}
	var now []delivery.Message
	var read []string
	for _, priority := range delivery.Priorities() {
		acked := message(kind{name: "acked", ends: []delivery.Status{delivery.StatusRead}}, priority)
		silent := message(kind{name: "silent", ends: slices.Concat(done, given)}, priority)
		acked.RequireAck, silent.RequireAck = true, true
		now = append(now, acked, silent,
			message(kind{name: "good", ends: done}, priority),
			message(kind{name: "flaky", ends: flaky}, priority))
		read = append(read, acked.ID)
	}
	now = append(now, message(kind{name: "bad", ends: given}, delivery.Normal))
	if _, err := h.publisher.SendBatch(ctx, now); on.Batch {
		require.NoError(t, err, name)
	} else {
		require.ErrorIs(t, err, delivery.ErrSwitchedOff, name)
		h.publish(now...)
	}

	scheduled := message(kind{name: "scheduled", ends: done}, delivery.Low)
	cancelled := message(kind{name: "cancelled", ends: []delivery.Status{delivery.StatusCancelled}}, delivery.Low)
	scheduled.NotBefore = time.Now().Add(time.Second)
	cancelled.NotBefore = scheduled.NotBefore
	h.publish(scheduled, cancelled)
	if err := h.publisher.Cancel(ctx, cancelled.ID); on.RetryWorker {
		require.NoError(t, err, name)
	} else {
		require.ErrorIs(t, err, delivery.ErrLate, "it is in the transport")
		l.kinds[cancelled.ID] = kind{settings: settings, ends: done}
	}

	unsaid := message(kind{name: "unsaid", ends: done}, delivery.Urgent)
	queued := message(kind{name: "queued", ends: done}, delivery.Normal)
	endConsumer := h.work()
	for _, m := range now {
		l.soon(func() bool { return l.ran(m.ID) > 0 }, "%s is handled", m.ID)
	}
	require.NoError(t, h.acks.Read(ctx, read...), name)
	endConsumer()

	// From here on nobody handles anything.
	h.publish(queued)
	tx, err := l.db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = h.publisher.PublishIn(ctx, h.store.In(tx), unsaid)
	require.NoError(t, tx.Commit())
	if !on.RetryWorker {
		require.ErrorIs(t, err, delivery.ErrUnsupported, name)
		delete(l.kinds, unsaid.ID)
		l.missing(unsaid.ID)
	} else {
		require.NoError(t, err, name)
	}
	h.stop()
	stats, err := l.store.Stats(ctx)
	require.NoError(t, err)
	for _, status := range delivery.Statuses() {
		l.left[status] += stats.Of(status)
	}
	require.Equal(t, len(l.kinds), stats.Total, name)
}

// conclude has a last process see to all that is left, and looks what has become
// of each message.
func (l *livelihood) conclude() {
	l.t.Helper()
	settings := hasty()
	config := governed(&settings)
	config.worker.ScanInterval = 100 * time.Millisecond
	h := l.run(config)
	l.soon(func() bool {
		stats, err := l.store.Stats(context.Background())
		return assert.NoError(l.t, err) &&
			stats.Of(delivery.StatusPending)+stats.Of(delivery.StatusQueued)+stats.Of(delivery.StatusRetrying)+stats.Of(delivery.StatusSent) == 0
	}, "every message comes to its end")
	h.idle()
	h.stop()
	letters := map[string]delivery.Reason{}
	for _, letter := range l.letters() {
		letters[letter.ID] = letter.Reason
	}
	for id, kind := range l.kinds {
		record := l.record(id)
		assert.Contains(l.t, kind.ends, record.Status, id)
		if record.Status == delivery.StatusFailed {
			assert.Contains(l.t, letters, record.DeadLetterID, id)
			delete(letters, record.DeadLetterID)
		}
		runs := l.ran(id)
		if record.Status == delivery.StatusCancelled {
			assert.Zero(l.t, runs, id)
		} else {
			assert.NotZero(l.t, runs, id)
		}
		if slices.Contains([]string{"good", "queued", "scheduled", "unsaid"}, kindOf(id)) {
			assert.LessOrEqual(l.t, runs, 1, "%s: processes that end as they should leave nothing to be repeated", id)
		}
		if !kind.settings.Features.PriorityQueues {
			assert.Equal(l.t, delivery.Normal, record.Priority, id)
		} else {
			assert.Contains(l.t, id, ", "+record.Priority.String()+", ", id)
		}
	}
	assert.Empty(l.t, letters, "every letter is a message's")
}
