package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/idempotencytest"
)

func openMemory(*testing.T) idempotencytest.Harness {
	return idempotencytest.Harness{Store: idempotency.NewMemory(idempotency.MemoryConfig{})}
}

func TestMemoryIsAStore(t *testing.T) {
	idempotencytest.TestStoreInBubbles(t, openMemory)
}

func TestMemoryIsAStoreInRealTime(t *testing.T) {
	idempotencytest.TestStore(t, openMemory)
}

func TestMemoryConfig(t *testing.T) {
	for _, test := range []struct {
		name   string
		config idempotency.MemoryConfig
		faults []string
	}{
		{"zero", idempotency.MemoryConfig{}, nil},
		{"smallest", idempotency.MemoryConfig{MaxKeys: 1, Shards: 1}, nil},
		{"not a power of two", idempotency.MemoryConfig{Shards: 5}, nil},
		{"all bad", idempotency.MemoryConfig{MaxKeys: -1, Shards: -1}, []string{"MaxKeys is -1, want at least 1", "Shards is -1, want 1 to 65536"}},
		{"too many shards", idempotency.MemoryConfig{Shards: math.MaxInt}, []string{"Shards is"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			memory := idempotency.NewMemory(test.config)
			_, err := memory.Claim(t.Context(), "key", "token", 0, time.Second)
			if test.faults == nil {
				require.NoError(t, memory.Err())
				assert.NoError(t, err)
				return
			}
			require.ErrorIs(t, memory.Err(), idempotency.ErrConfig)
			for _, fault := range test.faults {
				require.ErrorContains(t, memory.Err(), fault)
			}
			require.ErrorIs(t, err, idempotency.ErrConfig)
			assert.ErrorIs(t, err, idempotency.ErrUnavailable)
		})
	}
}

func TestMemoryThatIsEmpty(t *testing.T) {
	for name, memory := range map[string]*idempotency.Memory{"zero": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			require.ErrorIs(t, memory.Err(), idempotency.ErrConfig)
			assert.Zero(t, memory.Len())
			_, err := memory.Claim(ctx, "key", "token", 0, time.Second)
			require.ErrorIs(t, err, idempotency.ErrConfig)
			_, err = memory.Complete(ctx, "key", "token", time.Second)
			require.ErrorIs(t, err, idempotency.ErrConfig)
			require.ErrorIs(t, memory.Renew(ctx, "key", "token", time.Second), idempotency.ErrConfig)
			require.ErrorIs(t, memory.Schedule(ctx, "key", "token", 1, time.Second), idempotency.ErrConfig)
			require.ErrorIs(t, memory.Release(ctx, "key", "token"), idempotency.ErrConfig)
		})
	}
	_, err := idempotency.NewMemory(idempotency.MemoryConfig{}).Claim(nil, "key", "token", 0, time.Second) //nolint:staticcheck // nil is the case
	assert.ErrorIs(t, err, idempotency.ErrInvalid)
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 100})
		claim := func(key int, lease time.Duration) error {
			answer, err := memory.Claim(ctx, strconv.Itoa(key), "token", 0, lease)
			if err == nil && answer.State != idempotency.Claimed {
				return errors.New(answer.State.String())
			}
			return err
		}
		for key := range 100 {
			require.NoError(t, claim(key, time.Minute))
		}
		err := claim(100, time.Minute)
		require.ErrorIs(t, err, idempotency.ErrFull)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorContains(t, err, "MaxKeys is 100")
		assert.Equal(t, 100, memory.Len())

		// What is known goes on working.
		require.NoError(t, claim(7, time.Minute))
		require.NoError(t, memory.Schedule(ctx, "7", "token", 1, time.Hour))

		// A key given back makes room for one.
		require.NoError(t, memory.Release(ctx, "8", "token"))
		require.NoError(t, claim(100, time.Minute))
		require.ErrorIs(t, claim(101, time.Minute), idempotency.ErrFull)

		// So do all that expire, in whichever shard they are.
		time.Sleep(time.Minute)
		for key := range 99 {
			require.NoError(t, claim(1000+key, time.Minute))
		}
		require.ErrorIs(t, claim(2000, time.Minute), idempotency.ErrFull)

		// Done work is marked even without room.
		completion, err := memory.Complete(ctx, "9", "token", time.Hour)
		require.NoError(t, err)
		assert.Equal(t, idempotency.Late, completion)
		assert.Zero(t, memory.Forgotten())
	})
}

// Where there is no room, what has been done for the longest time is forgotten, in
// whichever shard it is, and nothing that is leased or fenced.
func TestMemoryForgetsTheOldestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		ctx := t.Context()
		memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: limit, Shards: 16})
		claim := func(key int) idempotency.State {
			answer, err := memory.Claim(ctx, strconv.Itoa(key), "token", 0, time.Hour)
			require.NoError(t, err)
			return answer.State
		}
		for key := range limit {
			require.Equal(t, idempotency.Claimed, claim(key))
		}
		require.NoError(t, memory.Schedule(ctx, "99", "token", 1, time.Hour))
		for i := range 90 { // in another order, with windows that end in another
			key := i * 7 % 90
			_, err := memory.Complete(ctx, strconv.Itoa(key), "token", time.Duration(100-i)*time.Hour)
			require.NoError(t, err)
		}
		for i := range 90 {
			require.Equal(t, idempotency.Claimed, claim(1000+i))
			require.EqualValues(t, i+1, memory.Forgotten())
			require.Equal(t, limit, memory.Len())
			if i < 89 {
				require.Equal(t, idempotency.Done, claim((i+1)*7%90), "the next one is still known")
			}
		}
		_, err := memory.Claim(ctx, "no room", "token", 0, time.Hour)
		require.ErrorIs(t, err, idempotency.ErrFull)
		answer, err := memory.Claim(ctx, "99", "another", 0, time.Hour)
		require.NoError(t, err)
		assert.Equal(t, idempotency.Stale, answer.State)
		assert.Equal(t, idempotency.Claimed, claim(95))
		assert.EqualValues(t, 90, memory.Forgotten())
	})
}

// More work than there is room for does not stand still, however long the window.
func TestMemoryThatIsFullGoesOn(t *testing.T) {
	memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 1000})
	guard := idempotency.NewGuard(memory, idempotency.GuardConfig{})
	var runs atomic.Int64
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			for i := range 1000 {
				key := idempotency.Key{ID: fmt.Sprint(worker, "/", i)}
				assert.NoError(t, guard.Do(t.Context(), key, func(context.Context) error {
					runs.Add(1)
					return nil
				}))
			}
		})
	}
	workers.Wait()
	assert.EqualValues(t, 8000, runs.Load())
	assert.EqualValues(t, 7000, memory.Forgotten())
	assert.Equal(t, 1000, memory.Len())
}

func TestMemoryWarnsBeforeItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		logger := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 100, Logger: logger})
		run := func(from, to int) {
			for key := from; key < to; key++ {
				_, err := memory.Claim(t.Context(), strconv.Itoa(key), "token", 0, time.Minute)
				require.NoError(t, err)
				_, err = memory.Complete(t.Context(), strconv.Itoa(key), "token", time.Hour)
				require.NoError(t, err)
			}
		}
		run(0, 79)
		require.Empty(t, text.String())
		run(79, 100)
		require.Equal(t, "level=WARN msg=\"idempotency keys fill up\" keys=80 max_keys=100\n", text.String())
		text.Reset()
		run(100, 150)
		require.Equal(t, "level=WARN msg=\"idempotency keys forgotten before their time\" forgotten=1 max_keys=100\n", text.String())
		text.Reset()
		time.Sleep(time.Minute + time.Second)
		run(150, 200)
		require.Equal(t, "level=WARN msg=\"idempotency keys forgotten before their time\" forgotten=51 max_keys=100\n", text.String())
		text.Reset()

		// When there was room again, the next time is told of, too.
		time.Sleep(time.Hour)
		for key := range 1000 { // each new key removes expired ones
			_, err := memory.Claim(t.Context(), strconv.Itoa(key), "token", 0, time.Minute)
			require.NoError(t, err)
			require.NoError(t, memory.Release(t.Context(), strconv.Itoa(key), "token"))
		}
		require.Zero(t, memory.Len())
		run(1000, 1080)
		require.Contains(t, text.String(), "fill up")
	})
}

func TestMemoryWithALoggerThatPanics(t *testing.T) {
	memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 1, Logger: slog.New(panicking{slog.DiscardHandler})})
	answer, err := memory.Claim(t.Context(), "key", "token", 0, time.Minute)
	require.NoError(t, err)
	assert.Equal(t, idempotency.Claimed, answer.State)
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { panic("no") }

// Keys that expire are cleared away by those that come, without anybody
// asking for them.
func TestMemorySweepsAsItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := idempotency.NewMemory(idempotency.MemoryConfig{Shards: 4})
		for key := range 100_000 {
			name := strconv.Itoa(key)
			_, err := memory.Claim(t.Context(), name, "token", 0, time.Second)
			require.NoError(t, err)
			_, err = memory.Complete(t.Context(), name, "token", 10*time.Second)
			require.NoError(t, err)
			time.Sleep(10 * time.Millisecond)
		}
		// A thousand are alive at any time.
		assert.Less(t, memory.Len(), 1100)
	})
}

func TestMemoryIsSmallAndGivesMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 20_000
		heap := func() int {
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return int(stats.HeapAlloc)
		}
		memory := idempotency.NewMemory(idempotency.MemoryConfig{})
		claim := func(key int) {
			name := "6:orders:0:0190a5d6-3d5c-7c1e-8b1a-" + strconv.Itoa(key)
			token := "a token of this many bytes " + strconv.Itoa(key)
			_, err := memory.Claim(t.Context(), name, token, 0, time.Second)
			require.NoError(t, err)
		}
		empty := heap()
		for key := range keys {
			claim(key)
		}
		assert.Less(t, (heap()-empty)/keys, 150, "bytes for each key")

		time.Sleep(time.Second)
		for key := range keys { // each clears two away
			claim(key)
			require.NoError(t, memory.Release(t.Context(), "6:orders:0:0190a5d6-3d5c-7c1e-8b1a-"+strconv.Itoa(key), "a token of this many bytes "+strconv.Itoa(key)))
		}
		assert.Zero(t, memory.Len())
		assert.Less(t, heap()-empty, 1<<20)
	})
}

// memoryModel is what a Memory should know, with expiry.
type memoryModel struct {
	state   string
	token   string
	attempt int
	expires time.Time
	order   int // in which it became done
}

func TestMemoryAgainstModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A bubble's own testing.T may not be asked for its deadline, as Check does.
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 4, Shards: rapid.IntRange(1, 3).Draw(t, "shards")})
			model := map[string]memoryModel{}
			ctx := context.Background()
			keys := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
			tokens := rapid.SampledFrom([]string{"x", "y", strings.Repeat("long", 20), strings.Repeat("long", 20) + "er"})
			durations := rapid.SampledFrom([]time.Duration{1, time.Second, 5 * time.Second, time.Minute})
			live := func(key string) memoryModel {
				known := model[key]
				if !time.Now().Before(known.expires) {
					delete(model, key)
					return memoryModel{}
				}
				return known
			}
			alive := func() (n int) {
				for key := range model {
					if live(key).state != "" {
						n++
					}
				}
				return n
			}
			completed, forgotten := 0, 0
			oldest := func() (oldest string) {
				for key := range model {
					if live(key).state == "done" && (oldest == "" || model[key].order < model[oldest].order) {
						oldest = key
					}
				}
				return oldest
			}
			t.Repeat(map[string]func(*rapid.T){
				"advance": func(t *rapid.T) { time.Sleep(durations.Draw(t, "by")) },
				"claim": func(t *rapid.T) {
					key, token, d := keys.Draw(t, "key"), tokens.Draw(t, "token"), durations.Draw(t, "lease")
					attempt := rapid.IntRange(0, 3).Draw(t, "attempt")
					known := live(key)
					answer, err := memory.Claim(ctx, key, token, attempt, d)
					switch {
					case known.state == "" && alive() >= 4 && oldest() == "":
						require.ErrorIs(t, err, idempotency.ErrFull)
						return
					case known.state == "" && alive() >= 4:
						delete(model, oldest())
						model[key] = memoryModel{state: "leased", token: token, expires: time.Now().Add(d)}
						forgotten++
					case known.state == "done":
						require.Equal(t, idempotency.Answer{State: idempotency.Done, Holder: known.token}, answer)
					case known.state == "leased" && known.token != token:
						require.Equal(t, idempotency.Answer{State: idempotency.Busy, Holder: known.token}, answer)
					case known.state == "retry" && attempt < known.attempt:
						require.Equal(t, idempotency.Answer{State: idempotency.Stale, Holder: known.token}, answer)
					default:
						require.Equal(t, idempotency.Answer{State: idempotency.Claimed, Holder: token}, answer)
						model[key] = memoryModel{state: "leased", token: token, expires: time.Now().Add(d)}
					}
					require.NoError(t, err)
				},
				"renew": func(t *rapid.T) {
					key, token, d := keys.Draw(t, "key"), tokens.Draw(t, "token"), durations.Draw(t, "lease")
					known := live(key)
					err := memory.Renew(ctx, key, token, d)
					if known.state != "leased" || known.token != token {
						require.ErrorIs(t, err, idempotency.ErrLost)
						return
					}
					require.NoError(t, err)
					known.expires = time.Now().Add(d)
					model[key] = known
				},
				"complete": func(t *rapid.T) {
					key, token, d := keys.Draw(t, "key"), tokens.Draw(t, "token"), durations.Draw(t, "window")
					known := live(key)
					if known.state == "" && alive() >= 4 {
						return // the one case in which more than MaxKeys are known
					}
					completion, err := memory.Complete(ctx, key, token, d)
					switch {
					case known.state == "done":
						require.NoError(t, err)
						return
					case known.state != "" && known.token != token:
						require.ErrorIs(t, err, idempotency.ErrLost)
						return
					}
					require.NoError(t, err)
					require.Equal(t, known.state == "", completion == idempotency.Late)
					completed++
					model[key] = memoryModel{state: "done", token: token, expires: time.Now().Add(d), order: completed}
				},
				"schedule": func(t *rapid.T) {
					key, token, d := keys.Draw(t, "key"), tokens.Draw(t, "token"), durations.Draw(t, "ttl")
					attempt := rapid.IntRange(0, 3).Draw(t, "attempt")
					known := live(key)
					err := memory.Schedule(ctx, key, token, attempt, d)
					if known.state == "" || known.state == "done" || known.token != token {
						require.ErrorIs(t, err, idempotency.ErrLost)
						return
					}
					require.NoError(t, err)
					model[key] = memoryModel{state: "retry", token: token, attempt: attempt, expires: time.Now().Add(d)}
				},
				"release": func(t *rapid.T) {
					key, token := keys.Draw(t, "key"), tokens.Draw(t, "token")
					known := live(key)
					err := memory.Release(ctx, key, token)
					switch {
					case known.state == "":
						require.NoError(t, err)
					case known.state == "leased" && known.token == token:
						require.NoError(t, err)
						delete(model, key)
					default:
						require.ErrorIs(t, err, idempotency.ErrLost)
					}
				},
				"": func(t *rapid.T) {
					require.GreaterOrEqual(t, memory.Len(), alive())
					require.LessOrEqual(t, alive(), 4)
					require.EqualValues(t, forgotten, memory.Forgotten())
				},
			})
		})
	})
}

// Keys come and go as in a long-running consumer: all new, expiring after a
// while.
func BenchmarkMemoryClaimComplete(b *testing.B) {
	b.ReportAllocs()
	memory := idempotency.NewMemory(idempotency.MemoryConfig{})
	ctx := context.Background()
	name := []byte("6:orders:0:0190a5d6-3d5c-7c1e-8b1a-000000000000")
	for i := 0; b.Loop(); i++ {
		key := string(strconv.AppendInt(name[:35], int64(i), 10))
		_, _ = memory.Claim(ctx, key, "token", 0, time.Second)
		_, _ = memory.Complete(ctx, key, "token", 20*time.Millisecond)
	}
}

// The same with half a million keys and more known at any time.
func BenchmarkMemoryClaimCompleteOfMany(b *testing.B) {
	b.ReportAllocs()
	memory := idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 10_000_000})
	ctx := context.Background()
	name := []byte("6:orders:0:0190a5d6-3d5c-7c1e-8b1a-000000000000")
	for i := 0; b.Loop(); i++ {
		key := string(strconv.AppendInt(name[:35], int64(i), 10))
		_, _ = memory.Claim(ctx, key, "token", 0, 100*time.Millisecond)
		_, _ = memory.Complete(ctx, key, "token", 700*time.Millisecond)
	}
}

func BenchmarkMemoryClaimReleaseParallel(b *testing.B) {
	b.ReportAllocs()
	memory := idempotency.NewMemory(idempotency.MemoryConfig{})
	var workers atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		key := fmt.Sprintf("6:orders:0:%032d", workers.Add(1))
		for pb.Next() {
			_, _ = memory.Claim(ctx, key, "token", 0, time.Minute)
			_ = memory.Release(ctx, key, "token")
		}
	})
}
