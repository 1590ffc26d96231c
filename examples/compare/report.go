package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/idempotency/redisstore"
)

// report is what goes into the file.
type report struct {
	pairs    int
	versions map[server]string // of those that were used
	findings []finding
}

func newReport(ctx context.Context, where addresses, pairs int) (*report, error) {
	r := &report{pairs: pairs, versions: make(map[server]string)}
	for kind, ask := range map[server]func(context.Context, addresses) (string, error){
		rabbitMQ: rabbitMQVersion, redisServer: redisVersion, postgreSQL: postgresVersion,
	} {
		version, err := ask(ctx, where)
		if err != nil {
			return nil, fmt.Errorf("asking %s for its version: %w", kind, err)
		}
		r.versions[kind] = version
	}
	return r, nil
}

func rabbitMQVersion(_ context.Context, where addresses) (string, error) {
	if where.amqp == "" {
		return "", nil
	}
	connection, err := amqp.Dial(where.amqp)
	if err != nil {
		return "", err
	}
	version, _ := connection.Properties["version"].(string)
	return version, connection.Close()
}

func redisVersion(ctx context.Context, where addresses) (string, error) {
	if where.redis == "" {
		return "", nil
	}
	client, err := redisstore.NewClient(where.redis)
	if err != nil {
		return "", err
	}
	info, err := client.Info(ctx, "server").Result()
	return field(info, "redis_version", ":"), errors.Join(err, client.Close())
}

func postgresVersion(ctx context.Context, where addresses) (version string, err error) {
	if where.postgres == "" {
		return "", nil
	}
	connection, err := pgx.Connect(ctx, where.postgres)
	if err != nil {
		return "", err
	}
	err = connection.QueryRow(ctx, "SHOW server_version").Scan(&version)
	version, _, _ = strings.Cut(version, " ")
	return version, errors.Join(err, connection.Close(ctx))
}

func (r *report) add(f finding) { r.findings = append(r.findings, f) }

func (r *report) markdown() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("# barid beside what one would use otherwise\n")
	line("Written by `make bench` (`go run ./examples/compare`) on %s.", time.Now().UTC().Format(time.DateOnly))
	line("A ratio is ours to theirs: the median of %d pairs that took turns on the same servers.", r.pairs)
	line("Only ratios can be compared with other machines'.\n")
	line("| row | ours | theirs | unit | ratio | lowest - highest | target | | messages a side |")
	line("| --- | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: |")
	for _, f := range r.findings {
		ratios := f.ratios()
		line("| %s | %.0f | %.0f | %s | %.2f | %.2f - %.2f | %s | %s | %d |", f.row.name, median(f.ours), median(f.theirs), f.row.unit,
			f.ratio(), slices.Min(ratios), slices.Max(ratios), number(f.row.target), f.verdict(), f.row.messages)
	}
	line("\n## Machine and versions\n")
	line("| | |\n| --- | --- |")
	line("| processor | %s, %d cores |", processor(), runtime.NumCPU())
	line("| kernel | %s %s |", runtime.GOOS, cmp.Or(firstLine("/proc/sys/kernel/osrelease"), "unknown"))
	line("| Go | %s |", strings.TrimPrefix(runtime.Version(), "go"))
	for kind, how := range []string{
		rabbitMQ:    fmt.Sprintf("one node, %d schedulers", runtime.NumCPU()),
		redisServer: "nothing on disk",
		postgreSQL:  "every commit synced to the disk (fsync and synchronous_commit are on), " + strings.Join(postgresSettings(), ", "),
	} {
		if version := r.versions[server(kind)]; version != "" {
			line("| %s | %s, beside the client, %s |", server(kind), version, how)
		}
	}
	for _, module := range modules() {
		line("| %s | %s |", module.Path, module.Version)
	}
	text.WriteString(settings())
	return text.String()
}

// settings say how both sides are set up.
func settings() string {
	text := `
## Settings

Both sides: bodies of {body} bytes and a handler that only notes the message; on RabbitMQ durable quorum queues, persistent
messages, confirms, an ack per message after its handler, prefetch {prefetch}; in databases every message durable before the
call returns that takes it, and again before it counts as done. Each side of each pair runs in a process of its own, on
fresh queues, databases or files, after a warm-up of a tenth of its messages; the side that begins changes from pair to
pair. Publishing is timed from the first call to the last return, consuming from the first message handled to the last, from
a queue that was filled before, and what goes through a store from the first call to the moment when the last message is
stored as done. Afterwards each side must show that every message came, once, and that none was left unacked or undone, or
the run fails.

| row | ours | theirs |
| --- | --- | --- |
| publish-raw | Publisher on the RabbitMQ transport, defaults, {callers} callers | amqp091-go, one connection and channel, deferred confirms, mandatory, {callers} callers, each waiting for its own confirm |
| publish-watermill | the same | watermill-amqp's publisher, ConfirmDelivery, ChannelPoolSize {pool}, {callers} callers |
| consume-raw | Consumer with retry, breaker, dedup in memory, metrics, {workers} workers | amqp091-go, one loop that acks each message |
| consume-watermill | the same | Router on watermill-amqp with PoisonQueue, Deduplicator, CircuitBreaker, Retry, Recoverer; {workers} handlers, each a consumer with a channel |
| consume-redis | the same with dedup in Redis | the same with dedup in memory |
| pipeline-watermill | Publisher and the same Consumer on the memory transport, {batch} messages a call | GoChannel and the same Router, {batch} messages a call, at most {prefetch} in hand |
| store-river-pg | Publisher and Consumer with a store in PostgreSQL, between them the memory transport, beside them a RetryWorker; transactions of up to {hand} records, {hand} messages in hand, room for all that is saved to wait in memory; {storeCallers} callers, {storeBatch} messages a call | River on PostgreSQL, insert, work and complete, the same calls by InsertManyFast (COPY), MaxWorkers {riverWorkers}, {riverConnections} connections, FetchCooldown and FetchPollInterval {pause} |
| store-river-sqlite | the same with the store in a file | River on a file opened with the same pragmas (WAL, synchronous=FULL), one connection, the rest as on PostgreSQL |
| scan-scale | one Claim of {due} due records after the other, of the number in -stored, 1,000,000 by default | the same of {few} |
| far-broker | as publish-raw, with everything on its way to and from RabbitMQ for {far} each way | the same |
| far-redis | as consume-redis, with everything on its way to and from Redis for {far} each way | the same with dedup in memory |
| replay | one bulk replay job over all dead letters in a SQLite file (synchronous=FULL), sent to the memory transport | a call of Requeue for each, one after the other |

What the peers need to be at their best, and what they do less:

- watermill-amqp opens a channel for each message unless it has a pool. A caller keeps its channel until its message is
  confirmed: with one for each of the {callers} callers instead of {pool} it was some 1.4 times as fast when tried. Its queues
  are quorum queues by Queue.Arguments. It does not notice a message that no queue takes.
- A subscription of watermill-amqp has one message in flight, whatever its prefetch; hence {workers} handlers on one queue.
- Its Deduplicator goes by the message's UUID. The default, a checksum of the body, costs more and takes equal bodies for one
  message. It marks a message before its handler runs; ours claims it before and marks it after.
- GoChannel has no bound; it was fastest with a few hundred messages in hand and no buffer. It has one handler, since a
  second would get copies.
- River was fastest with 500 to 1000 workers, 6 to 12 connections and InsertManyFast when tried. 100 or 2000 workers, 4 or 20
  connections, and InsertMany were slower; longer pauses between fetches did not help. On SQLite the number of workers and
  the pauses mattered little, and a second connection halved it. Its job timeout is switched off, the completer is as it
  comes.
- The stores of scan-scale have two of ten records waiting for a time that is years away, and the others delivered but for
  {due} due ones, which are every tenth of the newest and come due again after each claim.
- No peer has a handler timeout or metrics switched on, and the bare client has nothing but the client.
- Logs are discarded on all sides.
`
	return strings.NewReplacer(
		"{body}", strconv.Itoa(bodyBytes), "{prefetch}", strconv.Itoa(prefetch), "{callers}", strconv.Itoa(callers),
		"{workers}", strconv.Itoa(workers), "{pool}", strconv.Itoa(poolSize), "{batch}", strconv.Itoa(pipelineBatch),
		"{hand}", strconv.Itoa(storeInHand), "{storeCallers}", strconv.Itoa(storeCallers), "{storeBatch}", strconv.Itoa(storeBatch),
		"{riverWorkers}", strconv.Itoa(riverWorkers), "{riverConnections}", strconv.Itoa(riverConnections),
		"{far}", farDistance.String(), "{pause}", riverPause.String(), "{due}", strconv.Itoa(scanDue), "{few}", strconv.Itoa(storedFew),
	).Replace(text)
}

// modules are those that the figures hang on.
func modules() []*debug.Module {
	build, _ := debug.ReadBuildInfo()
	if build == nil {
		return nil
	}
	return slices.DeleteFunc(build.Deps, func(m *debug.Module) bool {
		for _, known := range []string{"/amqp091-go", "/watermill", "/watermill-amqp/", "/gobreaker", "/go-redis/", "/riverqueue/river/", "/pgx/", "/sqlite/"} {
			if strings.Contains(m.Path+"/", known) && m.Version != "" {
				return false
			}
		}
		return true
	})
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	return cmp.Or(field(string(info), "model name", ":"), runtime.GOARCH)
}

// field is the value of the first line that begins with a name.
func field(text, name, separator string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, separator); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(file string) string {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
