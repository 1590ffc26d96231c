package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/retry"
)

func TestWait(t *testing.T) {
	for name, test := range map[string]struct {
		done bool          // done is not nil
		ends time.Duration // when that happens
		want bool
		took time.Duration
	}{
		"over":             {done: true, ends: time.Hour, want: true, took: time.Minute},
		"nobody ends it":   {want: true, took: time.Minute},
		"ended":            {done: true, ends: time.Second, want: false, took: time.Second},
		"ended beforehand": {done: true, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var done <-chan struct{}
				if test.done {
					ctx, cancel := context.WithTimeout(t.Context(), test.ends)
					defer cancel()
					done = ctx.Done()
				}
				begin := time.Now()
				assert.Equal(t, test.want, retry.Wait(done, time.Minute))
				assert.Equal(t, test.took, time.Since(begin))
			})
		})
	}
}
