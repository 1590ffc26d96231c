package sqlstore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type job struct{ many size }

func (j job) size() size { return j.many }

// TestBatches: what waits is put together up to the bounds, in its order, and
// nothing is left when the batcher is closed.
func TestBatches(t *testing.T) {
	const rows, whole = 8, maxBytes
	small := job{size{rows: 1, bytes: 10}}
	third := job{size{rows: 1, bytes: whole/3 + 1}}
	huge := job{size{rows: 1, bytes: 5 * whole}}
	many := job{size{rows: 3}}
	for name, c := range map[string]struct {
		jobs []job
		want []int // how many are in each batch
	}{
		"all fit":              {[]job{small, small, small}, []int{3}},
		"rows":                 {[]job{many, many, many, many, many, small}, []int{3, 3}},
		"rows reach the limit": {[]job{small, small, many, many, small}, []int{4, 1}},
		"bytes":                {[]job{third, third, third, third, third}, []int{2, 2, 1}},
		"small after large":    {[]job{huge, small, small, huge, huge, small}, []int{1, 2, 1, 1, 1}},
		"large after small":    {[]job{small, huge}, []int{1, 1}},
		"exactly":              {[]job{{size{1, whole - 10}}, small, small}, []int{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			var order []job
			begun, release := make(chan struct{}), make(chan struct{})
			b := newBatcher(1, rows, func() (func([]job), func()) {
				return func(batch []job) {
					if len(order) == 0 { // the job that has the others wait
						close(begun)
						<-release
					} else {
						got = append(got, len(batch))
					}
					order = append(order, batch...)
				}, func() {}
			})
			require.NoError(t, b.submit(t.Context(), job{size{rows: rows}}))
			<-begun
			for _, j := range c.jobs { // the queue has room for as many as a batch has rows
				require.NoError(t, b.submit(t.Context(), j))
			}
			close(release)
			b.close()
			require.Equal(t, c.want, got)
			require.Equal(t, c.jobs, order[1:])
		})
	}
}
