package sqlstore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type item struct{ amount size }

func (i item) size() size { return i.amount }

// TestBatches checks that waiting items are batched up to the bounds, in their
// order, and that none is left when the batcher is closed.
func TestBatches(t *testing.T) {
	const rows, whole = 8, maxBytes
	small := item{size{rows: 1, bytes: 10}}
	third := item{size{rows: 1, bytes: whole/3 + 1}}
	huge := item{size{rows: 1, bytes: 5 * whole}}
	several := item{size{rows: 3}}
	for name, c := range map[string]struct {
		items []item
		want  []int // how many are in each batch
	}{
		"all fit":              {[]item{small, small, small}, []int{3}},
		"rows":                 {[]item{several, several, several, several, several, small}, []int{3, 3}},
		"rows reach the limit": {[]item{small, small, several, several, small}, []int{4, 1}},
		"bytes":                {[]item{third, third, third, third, third}, []int{2, 2, 1}},
		"small after large":    {[]item{huge, small, small, huge, huge, small}, []int{1, 2, 1, 1, 1}},
		"large after small":    {[]item{small, huge}, []int{1, 1}},
		"exactly":              {[]item{{size{1, whole - 10}}, small, small}, []int{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			var order []item
			begun, release := make(chan struct{}), make(chan struct{})
			b := newBatcher(1, rows, func() (func([]item), func()) {
				return func(batch []item) {
					if len(order) == 0 { // the first item: the others wait meanwhile
						close(begun)
						<-release
					} else {
						got = append(got, len(batch))
					}
					order = append(order, batch...)
				}, func() {}
			})
			require.NoError(t, b.submit(t.Context(), item{size{rows: rows}}))
			<-begun
			for _, j := range c.items { // the queue has room for as many as a batch has rows
				require.NoError(t, b.submit(t.Context(), j))
			}
			close(release)
			b.close()
			require.Equal(t, c.want, got)
			require.Equal(t, c.items, order[1:])
		})
	}
}
