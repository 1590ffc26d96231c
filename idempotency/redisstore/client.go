package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options reads a URL of the form
//
//	redis://user:password@host:port/database
//
// (rediss for TLS, unix for a socket) and adds the settings that suit a Store: see
// the package comment. What the URL sets by query parameters, as redis.ParseURL
// describes them, is kept. The errors of Options match ErrConfig and show no part
// of the URL, because a password with characters that should have been escaped can
// turn up in any part.
func Options(rawURL string) (*redis.Options, error) {
	options, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("%w: Redis URL %s", ErrConfig, urlProblem(err))
	}
	orDefault(&options.DialTimeout, time.Second)
	orDefault(&options.ReadTimeout, 500*time.Millisecond)
	orDefault(&options.WriteTimeout, 500*time.Millisecond)
	orDefault(&options.PoolTimeout, 500*time.Millisecond)
	orDefault(&options.MaxRetries, 1)
	options.DialerRetries = 1
	options.ContextTimeoutEnabled = true
	return options, nil
}

// NewClient returns a client with the Options of a URL. It does not connect
// yet. The caller closes it.
func NewClient(rawURL string) (*redis.Client, error) {
	options, err := Options(rawURL)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(options), nil
}

// ClientLog gives what go-redis itself has to say, such as that it could not dial, to
// Logger, as Warn events named "redis client" with the attribute text. Otherwise
// go-redis prints it to stderr. It has one log for all clients of the process, so no
// package of barid sets it. The host does, once, before it makes clients:
//
//	redis.SetLogger(redisstore.ClientLog{Logger: logger})
//
// The zero ClientLog discards: what keeps a Store from working is in its errors anyway.
type ClientLog struct {
	// Logger: nil discards.
	Logger *slog.Logger
}

// Printf is what go-redis calls.
func (l ClientLog) Printf(ctx context.Context, format string, args ...any) {
	if l.Logger != nil && l.Logger.Enabled(ctx, slog.LevelWarn) {
		l.Logger.LogAttrs(ctx, slog.LevelWarn, "redis client", slog.String("text", fmt.Sprintf(format, args...)))
	}
}

func orDefault[T comparable](setting *T, value T) {
	var unset T
	if *setting == unset {
		*setting = value
	}
}

// urlProblem says what is wrong without repeating any of it.
func urlProblem(err error) string {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return "can't be parsed, want redis://user:password@host:port/database with special characters escaped"
	}
	for _, known := range []struct{ prefix, problem string }{
		{"redis: invalid URL scheme", "has an unknown scheme, want redis, rediss or unix"},
		{"redis: invalid database number", "names no database, want a number"},
		{"redis: invalid URL path", "has a bad path, want /database"},
		{"redis: empty unix socket path", "has no path to a socket"},
		{"redis: unexpected option", "has an unknown query parameter"},
	} {
		if strings.HasPrefix(err.Error(), known.prefix) {
			return known.problem
		}
	}
	return "has a query parameter with a bad value"
}
