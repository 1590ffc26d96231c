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

// TestSettingsOverALiveStore switches every feature off and on again. From one
// process to the next there are messages in every state. In the end each is
// delivered, read, cancelled, or failed with its dead letter.
func TestSettingsOverALiveStore(t *testing.T) {
	onEveryBackend(t, func(f *fixture) {
		r := &settingsRun{fixture: f, kinds: map[string]kind{}, left: map[delivery.Status]int{}}
		f.setHandler(r.handle)
		for _, settings := range settingsWithFeaturesOff() {
			r.runProcess(settings.name, settings.Settings)
			r.runProcess("on after "+settings.name, quickSettings())
		}
		for _, status := range []delivery.Status{delivery.StatusPending, delivery.StatusQueued, delivery.StatusRetrying, delivery.StatusSent} {
			assert.NotZero(f.t, r.left[status], "some were %s between two processes", status)
		}
		r.finish()
	})
}

// quickSettings have short times and few retries.
func quickSettings() delivery.Settings {
	settings := delivery.DefaultSettings()
	settings.MaxRetries = 2
	settings.BaseRetryDelay = time.Second
	settings.AcknowledgmentTimeout = time.Minute
	settings.CircuitBreakerTimeout = time.Second
	return settings
}

// configOf has a grace that is longer than any pause of the machine, so that no
// message is sent twice because of one.
func configOf(settings *delivery.Settings) flowConfig {
	config := quickConfig()
	config.publisher.PendingGrace = 3 * time.Second
	config.settings = settings
	return config
}

type namedSettings struct {
	name string
	delivery.Settings
}

// settingsWithFeaturesOff are settings with one feature off, for each feature,
// and settings with all off.
func settingsWithFeaturesOff() []namedSettings {
	var all []namedSettings
	off := namedSettings{"all off", quickSettings()}
	off.Features = delivery.Features{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[delivery.Features]()) {
		without := namedSettings{field.Name + " off", quickSettings()}
		reflect.ValueOf(&without.Features).Elem().FieldByIndex(field.Index).SetBool(false)
		all = append(all, without)
	}
	return append(all, off)
}

// kind is what a message is like, and which ends it may have.
type kind struct {
	name     string
	settings delivery.Settings // that it was published under
	ends     []delivery.Status
}

// settingsRun is many messages, and several processes one after another.
type settingsRun struct {
	*fixture
	kinds map[string]kind // by message; written while nobody consumes
	left  map[delivery.Status]int
}

func kindOf(id string) string {
	name, _, _ := strings.Cut(id, ",")
	return name
}

func (r *settingsRun) handle(m delivery.Message, run int) error {
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

// runProcess runs one process. It publishes messages of every kind, handles
// some, and ends with the others in all states.
func (r *settingsRun) runProcess(name string, settings delivery.Settings) {
	r.t.Helper()
	t, ctx, on := r.t, r.t.Context(), settings.Features
	p := r.start(configOf(&settings))
	message := func(kind kind, priority delivery.Priority) delivery.Message {
		kind.settings = settings
		m := delivery.Message{ID: fmt.Sprintf("%s, %s, %s", kind.name, priority, name), Recipient: "r", Priority: priority}
		r.kinds[m.ID] = kind
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
	if _, err := p.publisher.SendBatch(ctx, now); on.Batch {
		require.NoError(t, err, name)
	} else {
		require.ErrorIs(t, err, delivery.ErrSwitchedOff, name)
		p.publish(now...)
	}

	scheduled := message(kind{name: "scheduled", ends: done}, delivery.Low)
	cancelled := message(kind{name: "cancelled", ends: []delivery.Status{delivery.StatusCancelled}}, delivery.Low)
	scheduled.NotBefore = time.Now().Add(time.Second)
	cancelled.NotBefore = scheduled.NotBefore
	p.publish(scheduled, cancelled)
	if err := p.publisher.Cancel(ctx, cancelled.ID); on.RetryWorker {
		require.NoError(t, err, name)
	} else {
		require.ErrorIs(t, err, delivery.ErrLate, "it is in the transport")
		r.kinds[cancelled.ID] = kind{settings: settings, ends: done}
	}

	unsaid := message(kind{name: "unsaid", ends: done}, delivery.Urgent)
	queued := message(kind{name: "queued", ends: done}, delivery.Normal)
	endConsumer := p.work()
	for _, m := range now {
		r.eventually(func() bool { return r.runsOf(m.ID) > 0 }, "%s is handled", m.ID)
	}
	require.NoError(t, p.acks.Read(ctx, read...), name)
	endConsumer()

	// From here on no message is handled.
	p.publish(queued)
	tx, err := r.db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = p.publisher.PublishIn(ctx, p.store.In(tx), unsaid)
	require.NoError(t, tx.Commit())
	if !on.RetryWorker {
		require.ErrorIs(t, err, delivery.ErrUnsupported, name)
		delete(r.kinds, unsaid.ID)
		r.missing(unsaid.ID)
	} else {
		require.NoError(t, err, name)
	}
	p.stop()
	stats, err := r.store.Stats(ctx, "")
	require.NoError(t, err)
	for _, status := range delivery.Statuses() {
		r.left[status] += stats.Of(status)
	}
	require.Equal(t, len(r.kinds), stats.Total, name)
}

// finish has a last process handle all that is left, and checks what has become
// of each message.
func (r *settingsRun) finish() {
	r.t.Helper()
	settings := quickSettings()
	config := configOf(&settings)
	config.worker.ScanInterval = 100 * time.Millisecond
	p := r.run(config)
	r.eventually(func() bool {
		stats, err := r.store.Stats(context.Background(), "")
		return assert.NoError(r.t, err) &&
			stats.Of(delivery.StatusPending)+stats.Of(delivery.StatusQueued)+stats.Of(delivery.StatusRetrying)+stats.Of(delivery.StatusSent) == 0
	}, "every message comes to its end")
	p.idle()
	p.stop()
	letters := map[string]delivery.Reason{}
	for _, letter := range r.letters() {
		letters[letter.ID] = letter.Reason
	}
	for id, kind := range r.kinds {
		record := r.record(id)
		assert.Contains(r.t, kind.ends, record.Status, id)
		if record.Status == delivery.StatusFailed {
			assert.Contains(r.t, letters, record.DeadLetterID, id)
			delete(letters, record.DeadLetterID)
		}
		runs := r.runsOf(id)
		if record.Status == delivery.StatusCancelled {
			assert.Zero(r.t, runs, id)
		} else {
			assert.NotZero(r.t, runs, id)
		}
		if slices.Contains([]string{"good", "queued", "scheduled", "unsaid"}, kindOf(id)) {
			assert.LessOrEqual(r.t, runs, 1, "%s: processes that end as they should leave nothing to be repeated", id)
		}
		if !kind.settings.Features.PriorityQueues {
			assert.Equal(r.t, delivery.Normal, record.Priority, id)
		} else {
			assert.Contains(r.t, id, ", "+record.Priority.String()+", ", id)
		}
	}
	assert.Empty(r.t, letters, "every letter is a message's")
}
