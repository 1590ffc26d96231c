package main

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	letters "github.com/esh3artech/barid/dlq/redisstore"
	keys "github.com/esh3artech/barid/idempotency/redisstore"
)

var (
	limitLine = regexp.MustCompile(`^limit: the answers to (\d+) handlers came too late`)
	lastLine  = regexp.MustCompile(`^demo: published=4000 delivered=\d+ dead_lettered=(\d+) requeued=[1-9]\d* lost=0 duplicates=(\d+)$`)
)

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rabbitmq")
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(output))
	return program
}

// TestBrokerKilled kills the broker with SIGKILL in the middle of the job, while
// messages are published and delivered, and starts it again. The ledger must
// still balance, and the dead letters must outlive the host.
func TestBrokerKilled(t *testing.T) {
	broker := servers.StartRabbitMQ(t, servers.RabbitMQConfig{})
	redis := servers.StartRedis(t, servers.RedisConfig{})
	command := exec.CommandContext(t.Context(), build(t), "-amqp", broker.URL(), "-redis", redis.URL(), "-messages", "4000")
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	command.Stderr = &stderr
	require.NoError(t, command.Start())

	var lines []string
	killed := false
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		lines = append(lines, scanner.Text())
		t.Log(scanner.Text())
		if !killed && strings.Contains(scanner.Text(), " of 4000:") {
			killed = true
			require.NoError(t, broker.Kill())
			require.NoError(t, broker.Start(t.Context()))
			t.Log("broker killed and started again")
		}
	}
	require.NoError(t, command.Wait(), stderr.String())
	assert.True(t, killed, "the job was over before the broker could be killed")
	require.Greater(t, len(lines), 2)
	limit := limitLine.FindStringSubmatch(lines[len(lines)-2])
	last := lastLine.FindStringSubmatch(lines[len(lines)-1])
	require.NotNil(t, limit)
	require.NotNil(t, last)
	assert.Equal(t, limit[1], last[2], "duplicates that no late answer explains")

	client, err := keys.NewClient(redis.URL())
	require.NoError(t, err)
	defer func() { assert.NoError(t, client.Close()) }()
	kept, err := letters.New(client, letters.Config{Prefix: "barid-demo:dlq"}).Count(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	assert.Equal(t, last[1], strconv.Itoa(kept), "dead letters in Redis")
}

func TestUnreachableServersAreNamed(t *testing.T) {
	program := build(t)
	redis := servers.StartRedis(t, servers.RedisConfig{})
	for name, test := range map[string]struct {
		args []string
		says []string
	}{
		"broker": {[]string{"-amqp", "amqp://guest:hunter2@127.0.0.1:1/", "-reach", "3s", "-redis", redis.URL()}, []string{"127.0.0.1:1", "refused", "-amqp"}},
		"url":    {[]string{"-amqp", "http://guest:hunter2@127.0.0.1:1/", "-redis", redis.URL()}, []string{"amqp://"}},
	} {
		t.Run(name, func(t *testing.T) {
			output, err := exec.CommandContext(t.Context(), program, test.args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 1, exit.ExitCode())
			for _, says := range test.says {
				assert.Contains(t, string(output), says)
			}
			assert.NotContains(t, string(output), "hunter2")
		})
	}
	t.Run("redis", func(t *testing.T) {
		broker := servers.StartRabbitMQ(t, servers.RabbitMQConfig{})
		output, err := exec.CommandContext(t.Context(), program, "-amqp", broker.URL(), "-redis", "redis://:hunter2@127.0.0.1:1/0").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(output), "127.0.0.1:1")
		assert.Contains(t, string(output), "-redis")
		assert.NotContains(t, string(output), "hunter2")
	})
}
