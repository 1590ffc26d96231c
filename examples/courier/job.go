// Package courier is the job that the examples quickstart and rabbitmq run: it
// publishes messages of mixed priority, delivers them through a provider that
// fails in every usual way, mends what can be mended among the dead letters and
// sends that again, and then settles the ledger: what the provider took, against
// what was published.
//
// It is also a picture of a host: handler.go and job.go are about what an
// application has to write.
package courier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// Config says what the job runs on.
type Config struct {
	// Transport carries the messages. The job does not close it.
	Transport delivery.Transport
	// Idempotency suppresses duplicates.
	Idempotency idempotency.Store
	// Store, when set, keeps the messages' records, and DeadLetters the dead
	// letters, beyond the process. Default: none, and dlq.Memory.
	Store       delivery.Store
	DeadLetters dlq.Store
	// Folder, when set, has the books of a job that several processes take up one
	// after the other: Effects, the provider's ledger, and the host's, Published
	// and Unheard. The provider runs at URL. Default: a temporary one, and the
	// job's own provider.
	Folder string
	URL    string
	// Run begins the messages' IDs. Default: a new one.
	Run string
	// KillAfter, when not 0, has the process kill itself after so many
	// deliveries.
	KillAfter int
	// Messages is how many to publish. Default 2,000.
	Messages int
	// Patience is how long to wait for the end of each part. Default 5 min.
	Patience time.Duration
	// Output takes what is shown. Default os.Stdout.
	Output io.Writer
	// Logger takes what the pipeline logs. Nil discards.
	Logger *slog.Logger
}

// Effects, Published and Unheard are the names of the ledgers in Config.Folder.
const (
	Effects   = "effects.log"
	Published = "published.log"
	Unheard   = "unheard.log"
)

// ErrLedger is returned by Run when a message was lost, or delivered twice
// without a reason: a crash between effect and mark, or an answer of the
// provider that came too late to be heard.
var ErrLedger = errors.New("courier: the ledger does not balance")

const (
	// lease is for how long what a process has in hand stays its own when it dies.
	lease = 5 * time.Second
	// handlerTimeout is for how long the provider may take to answer.
	handlerTimeout = time.Second
)

// Run runs the job, or goes on with one whose process died, shows how it goes
// and what came of it.
func Run(ctx context.Context, config Config) (err error) {
	if config.Messages == 0 {
		config.Messages = 2000
	}
	if config.Patience == 0 {
		config.Patience = 5 * time.Minute
	}
	if config.Output == nil {
		config.Output = os.Stdout
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Run == "" {
		config.Run = delivery.NewID()
	}
	if config.DeadLetters == nil {
		config.DeadLetters = dlq.NewMemory(dlq.MemoryConfig{})
	}
	if config.Folder == "" {
		if config.Folder, err = os.MkdirTemp("", "courier-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(config.Folder)) }()
	}
	j := &job{
		config:    config,
		effects:   OpenLedger(filepath.Join(config.Folder, Effects)),
		published: OpenLedger(filepath.Join(config.Folder, Published)),
		unheard:   OpenLedger(filepath.Join(config.Folder, Unheard)),
		collector: metrics.NewCollector(metrics.CollectorConfig{}),
	}
	defer func() { err = errors.Join(err, j.effects.Close(), j.published.Close(), j.unheard.Close()) }()
	if config.URL == "" {
		provider, err := StartProvider(j.effects, config.Messages/3)
		if err != nil {
			return err
		}
		defer func() { _ = provider.Close() }()
		j.config.URL = provider.URL
	}
	return j.run(ctx)
}

type job struct {
	config    Config
	effects   *Ledger // the provider's
	published *Ledger // what Publish has returned nil for
	unheard   *Ledger // whose handlers ended without an answer of the provider
	collector *metrics.Collector
	letters   *dlq.Manager
	breaker   *breaker.Breaker
	between   map[string]bool // messages between effect and mark when the process before died
}

func (j *job) run(ctx context.Context) error {
	publisher, err := delivery.NewPublisher(j.config.Transport, delivery.PublisherConfig{
		Store:        j.config.Store,
		PendingGrace: lease,
		Metrics:      j.collector,
		Logger:       j.config.Logger,
	})
	if err != nil {
		return err
	}
	j.letters = dlq.NewManager(j.config.DeadLetters, publisher, dlq.Config{Metrics: j.collector})
	j.breaker = breaker.New(breaker.Config{Name: "provider", SampleSize: 20, OpenFor: 300 * time.Millisecond})
	consumer, err := delivery.NewConsumer(j.config.Transport, NewHandler(j.config.URL), delivery.ConsumerConfig{
		Concurrency:      32,
		HandlerTimeout:   handlerTimeout,
		DrainTimeout:     5 * time.Second,
		Retry:            retry.Exponential{Base: 200 * time.Millisecond, Max: 2 * time.Second, MaxRetries: 6, Jitter: retry.JitterFull},
		Store:            j.config.Store,
		Idempotency:      j.config.Idempotency,
		IdempotencyLease: lease,
		Breaker:          j.breaker,
		DeadLetters:      j.letters,
		Middleware:       []delivery.Middleware{j.listener, j.killer()},
		Metrics:          j.collector,
		Logger:           j.config.Logger,
	})
	if err != nil {
		return err
	}
	work := []func(context.Context) error{consumer.Run}
	if j.config.Store != nil {
		worker, err := delivery.NewRetryWorker(j.config.Store, j.config.Transport, delivery.RetryWorkerConfig{
			Lease:       lease,
			DeadLetters: j.letters,
			Metrics:     j.collector,
			Logger:      j.config.Logger,
		})
		if err != nil {
			return err
		}
		work = append(work, worker.Run)
	}
	messages, err := j.takeUp(ctx)
	if err != nil {
		return err
	}

	working, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(work))
	for _, run := range work {
		go func() { ended <- run(working) }()
	}
	publishing := make(chan error, 1)
	go func() { publishing <- j.publish(ctx, publisher, messages) }()

	show := newProgress(j.config.Output, len(messages))
	settled := func(ctx context.Context) (bool, error) { return j.settled(ctx, messages) }
	err = j.await(ctx, show, publishing, ended, settled)
	show.finish()
	if err != nil {
		return err
	}
	fmt.Fprintln(j.config.Output)
	if err := j.show(ctx, messages); err != nil {
		return err
	}
	requeued, err := j.mend(ctx)
	if err != nil {
		return err
	}
	if err := j.await(ctx, nil, nil, ended, settled); err != nil {
		return err
	}
	if err := publisher.Close(ctx); err != nil {
		return err
	}
	stop()
	for range work {
		if err := <-ended; err != nil {
			return err
		}
	}
	return j.settle(ctx, messages, requeued)
}

// listener writes down whose handlers ended without an answer of the provider.
// It may have taken the message all the same: that is why a timeout may lead to
// a duplicate, here as everywhere.
func (j *job) listener(next delivery.Handler) delivery.Handler {
	return func(ctx context.Context, message delivery.Message) error {
		err := next(ctx, message)
		var answer *retry.HTTPError
		if ctx.Err() == nil && (err == nil || errors.As(err, &answer)) {
			return err
		}
		return errors.Join(err, j.unheard.Add(message.ID))
	}
}

// killer kills the process in the middle, when it is told to, as kill -9 does:
// after an effect, and before anybody knows of it.
func (j *job) killer() delivery.Middleware {
	var delivered atomic.Int64
	return func(next delivery.Handler) delivery.Handler {
		return func(ctx context.Context, message delivery.Message) error {
			err := next(ctx, message)
			if err == nil && int(delivered.Add(1)) == j.config.KillAfter {
				if self, err := os.FindProcess(os.Getpid()); err == nil {
					_ = self.Kill()
				}
			}
			return err
		}
	}
}

// takeUp returns all messages of the job. Where a process before has begun with
// it, that finds the messages that had been between effect and mark: they are in
// the provider's ledger and have no record of that.
func (j *job) takeUp(ctx context.Context) ([]delivery.Message, error) {
	messages := compose(j.config.Run, j.config.Messages)
	if j.config.Store == nil {
		return messages, nil
	}
	effects, err := j.effects.Counts()
	if err != nil {
		return nil, err
	}
	unheard, err := j.unheard.Counts()
	if err != nil {
		return nil, err
	}
	j.between = map[string]bool{}
	for id, times := range effects {
		records, errs := j.config.Store.Get(ctx, id)
		if errs != nil && errs[0] != nil {
			return nil, errs[0]
		}
		if records[0].Status != delivery.StatusDelivered && times > unheard[id] {
			j.between[id] = true
		}
	}
	return messages, nil
}

// show shows what the first part of the job came to.
func (j *job) show(ctx context.Context, messages []delivery.Message) error {
	dead, err := j.dead(ctx)
	if err != nil {
		return err
	}
	effects, err := j.effects.Counts()
	if err != nil {
		return err
	}
	showTable(j.config.Output, j.collector.Snapshot(), len(messages), len(effects), dead)
	return nil
}

// compose makes messages of mixed priority, for numbers of which a few are
// unknown or blocked.
func compose(run string, n int) []delivery.Message {
	priorities := delivery.Priorities()
	messages := make([]delivery.Message, n)
	for i := range messages {
		messages[i] = delivery.Message{
			ID:        fmt.Sprintf("%s-%06d", run, i),
			Recipient: fmt.Sprintf("+9665%08d", i),
			Type:      "sms.reminder",
			Body:      []byte("Your appointment is tomorrow. Ref " + strconv.Itoa(i)),
			Priority:  priorities[i%len(priorities)],
		}
	}
	return messages
}

// publish publishes in small calls, as requests come in, and now and then twice:
// a caller that saw no answer publishes again, with the same ID. What a process
// before has published is left out.
func (j *job) publish(ctx context.Context, publisher *delivery.Publisher, messages []delivery.Message) error {
	const step = 25
	before, err := j.published.Counts()
	if err != nil {
		return err
	}
	for i := 0; i < len(messages); i += step {
		part := messages[i:min(i+step, len(messages))]
		if before[part[0].ID] > 0 {
			continue
		}
		if err := publisher.Publish(ctx, part...); err != nil {
			return err
		}
		ids := make([]string, len(part))
		for k := range part {
			ids[k] = part[k].ID
		}
		if err := j.published.Add(ids...); err != nil {
			return err
		}
		if err := publisher.Publish(ctx, part[0]); err != nil {
			return err
		}
	}
	return nil
}

// await waits until all is published and settled.
func (j *job) await(ctx context.Context, show *progress, publishing, working <-chan error, settled func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, j.config.Patience, fmt.Errorf("courier: not done after %s", j.config.Patience))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-working:
			return fmt.Errorf("courier: the consumer or the retry worker ended early: %w", err)
		case err := <-publishing:
			if err != nil {
				return err
			}
			publishing = nil
		case <-tick.C:
			dead, err := j.dead(ctx)
			if err != nil {
				break // the store is away for a moment: ask again
			}
			effects, err := j.effects.Counts()
			if err != nil {
				return err
			}
			show.update(len(effects), len(dead), j.collector.Snapshot(), j.breaker.State())
			if publishing != nil {
				continue
			}
			done, err := settled(ctx)
			if err != nil || done {
				return err
			}
		}
	}
}

// settled says whether every message is delivered or a dead letter, and nothing
// waits in the queues any more.
func (j *job) settled(ctx context.Context, messages []delivery.Message) (bool, error) {
	dead, err := j.dead(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // the store is away for a moment: ask again
	}
	ended, err := j.effects.Counts()
	if err != nil {
		return false, err
	}
	for _, entry := range dead {
		ended[entry.Envelope.ID]++
	}
	for _, message := range messages {
		if ended[message.ID] == 0 {
			return false, nil
		}
	}
	if j.config.Store != nil {
		records, err := j.config.Store.Stats(ctx, "")
		return records.Of(delivery.StatusDelivered)+records.Of(delivery.StatusFailed) == len(messages), err
	}
	depther, ok := j.config.Transport.(delivery.Depther)
	if !ok {
		return true, nil
	}
	depths, err := depther.Depth(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // the transport is away for a moment: ask again
	}
	for _, depth := range depths {
		if depth.Messages > 0 {
			return false, nil
		}
	}
	return true, nil
}

// dead returns the job's dead letters, page by page. A durable store may keep
// others, too.
func (j *job) dead(ctx context.Context) ([]dlq.Entry, error) {
	var entries []dlq.Entry
	query := dlq.Query{Limit: 500}
	for {
		page, err := j.letters.List(ctx, query)
		if err != nil {
			return nil, err
		}
		for _, entry := range page.Entries {
			if strings.HasPrefix(entry.Envelope.ID, j.config.Run+"-") {
				entries = append(entries, entry)
			}
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			return entries, nil
		}
	}
}

// mend does what an operator does: it looks through the dead letters, sees to
// what can be mended, here numbers that were not registered and messages that
// had bad luck too often, and requeues those. It returns how many.
func (j *job) mend(ctx context.Context) (int, error) {
	entries, err := j.dead(ctx)
	if err != nil {
		return 0, err
	}
	var mendable []string
	for _, entry := range entries {
		number := entry.Envelope.Recipient
		switch {
		case isBlocked(number):
			continue
		case isUnknown(number):
			if err := j.register(ctx, number); err != nil {
				return 0, err
			}
		}
		mendable = append(mendable, entry.ID)
	}
	if _, err := j.letters.Requeue(ctx, mendable...); err != nil {
		return 0, err
	}
	fmt.Fprintf(j.config.Output, "\nmended and requeued %d dead letters\n", len(mendable))
	return len(mendable), nil
}

// register has the provider know a number.
func (j *job) register(ctx context.Context, number string) error {
	form := strings.NewReader(url.Values{"number": {number}}.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, j.config.URL+"/numbers", form)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return retry.FromResponse(response)
}

// settle settles the ledger: every message that was published is among the
// provider's effects, once, or among the dead letters. It may be among the
// effects once more for each time that it was unheard, and if it was between
// effect and mark when the process was killed.
func (j *job) settle(ctx context.Context, messages []delivery.Message, requeued int) error {
	effects, err := j.effects.Counts()
	if err != nil {
		return err
	}
	unheard, err := j.unheard.Counts()
	if err != nil {
		return err
	}
	entries, err := j.dead(ctx)
	if err != nil {
		return err
	}
	dead := map[string]bool{}
	for _, entry := range entries {
		dead[entry.Envelope.ID] = true
	}
	delivered, lost, duplicates, late, unexplained := 0, 0, 0, 0, 0
	for _, message := range messages {
		id := message.ID
		count := effects[id]
		if count == 0 {
			if !dead[id] {
				lost++
			}
			continue
		}
		delivered++
		duplicates += count - 1
		excused := min(count-1, unheard[id])
		late += excused
		if count-1 > excused && j.between[id] {
			excused++
		}
		unexplained += count - 1 - excused
	}
	fmt.Fprintf(j.config.Output, "ledger: %d published = %d delivered (some of the %d requeued among them) + %d dead letters kept + %d lost\n",
		len(messages), delivered, requeued, len(dead), lost)
	limit := fmt.Sprintf("the answers to %d handlers came too late", late)
	if j.config.Store != nil {
		limit = fmt.Sprintf("%d handlers were between effect and mark when the process was killed, and ", len(j.between)) + limit
	}
	fmt.Fprintf(j.config.Output, "limit: %s; each may run once more\n", limit)
	fmt.Fprintf(j.config.Output, "demo: published=%d delivered=%d dead_lettered=%d requeued=%d lost=%d duplicates=%d\n",
		len(messages), delivered, len(dead), requeued, lost, duplicates)
	if lost != 0 || unexplained != 0 {
		return ErrLedger
	}
	return nil
}
