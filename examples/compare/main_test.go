package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

var shared servers.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m).Run()) }

// everywhere is where all servers are.
func everywhere(t *testing.T) addresses {
	return addresses{amqp: shared.AMQP(t), redis: shared.RedisURL(t), postgres: shared.PostgresURL(t), stored: 2 * storedFew}
}

// Every side of every row does its work on real servers, and says so.
func TestSides(t *testing.T) {
	where := everywhere(t)
	for _, r := range rows() {
		for name, work := range map[string]side{sideOurs: r.ours, sideTheirs: r.theirs} {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				took, err := work(t.Context(), where, 200)
				require.NoError(t, err)
				assert.Positive(t, took)
			})
		}
	}
}

func TestReportNamesVersions(t *testing.T) {
	r, err := newReport(t.Context(), everywhere(t), 5)
	require.NoError(t, err)
	for _, kind := range []server{rabbitMQ, redisServer, postgreSQL} {
		assert.NotEmpty(t, r.versions[kind], kind)
	}

	r, err = newReport(t.Context(), addresses{}, 5)
	require.NoError(t, err)
	assert.NotContains(t, r.markdown(), "beside the client")
}

// What is not acked is found, also when its consumer is gone.
func TestCheckEmptyFindsWhatIsNotAcked(t *testing.T) {
	url := shared.AMQP(t)
	_, err := withQueue(url, func(queue string) (time.Duration, error) {
		require.NoError(t, fill(url, queue, 1, rawMessages(1)))
		return 0, withChannel(url, func(channel *amqp.Channel) error {
			deliveries, err := channel.Consume(queue, "slow", false, false, false, false, nil)
			require.NoError(t, err)
			d := <-deliveries
			require.NoError(t, channel.Cancel("slow", false))
			require.NoError(t, d.Nack(false, true))
			require.ErrorContains(t, checkEmpty(url, queue), "not acked")
			return nil
		})
	})
	require.NoError(t, err)
}

func TestLedger(t *testing.T) {
	books := newLedger(2)
	books.note(messageID(1))
	require.ErrorContains(t, books.check(), "1 were lost")
	books.note(messageID(0))
	require.NoError(t, books.wait(t.Context(), nil))
	require.NoError(t, books.check())
	assert.GreaterOrEqual(t, books.elapsed(), time.Duration(0))

	books.note(messageID(0))
	require.ErrorContains(t, books.check(), "1 came twice")
	books.note(messageID(2))
	books.note("another")
	require.ErrorContains(t, books.check(), "2 came that were never sent")

	ended := make(chan error, 1)
	ended <- amqp.ErrClosed
	require.ErrorIs(t, newLedger(1).wait(t.Context(), ended), amqp.ErrClosed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, newLedger(1).wait(ctx, nil), context.Canceled)
}

func TestFinding(t *testing.T) {
	f := finding{row: row{name: "some", target: 1.5, unit: inMessages}, ours: []float64{300, 100, 200}, theirs: []float64{100, 100, 100}}
	assert.Equal(t, "ratio some 200 100 messages/s 2.00 target 1.5 ok", f.String())
	f.row.target = 3
	assert.Equal(t, "short", f.verdict())
	assert.InDelta(t, 1.5, median([]float64{2, 1}), 0)
}

func TestMarkdown(t *testing.T) {
	r := &report{pairs: 1, versions: map[server]string{rabbitMQ: "3.10.8", redisServer: "7.0.15"}}
	r.add(finding{row: row{name: "some", target: 1, messages: 10, unit: inMessages}, ours: []float64{20}, theirs: []float64{10}})
	text := r.markdown()
	assert.Contains(t, text, "| some | 20 | 10 | messages/s | 2.00 | 2.00 - 2.00 | 1 | ok | 10 |\n")
	assert.Contains(t, text, "| RabbitMQ | 3.10.8")
	assert.NotContains(t, text, "{")
	for _, r := range rows() {
		assert.Contains(t, strings.SplitAfter(text, "## Settings")[1], "| "+r.name+" |")
	}
}

func TestSelectRows(t *testing.T) {
	all, err := selectRows("")
	require.NoError(t, err)
	assert.Len(t, all, len(rows()))
	some, err := selectRows("consume-raw,publish-raw")
	require.NoError(t, err)
	require.Len(t, some, 2)
	assert.Equal(t, "consume-raw", some[0].name)
	_, err = selectRows("publish")
	require.ErrorContains(t, err, `no row "publish"`)
}
