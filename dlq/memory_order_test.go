package dlq

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is moved to put one in or to take one out is part of a chunk, and part of
// the list of chunks.
func TestItemOrderMovesLittle(t *testing.T) {
	const count = 20_000
	for name, when := range map[string]func(i int) int{
		"ascending":  func(i int) int { return i },
		"descending": func(i int) int { return -i },
		"scattered":  func(i int) int { return i * 7919 % count },
	} {
		t.Run(name, func(t *testing.T) {
			var order itemOrder
			check := func(size, most int) {
				t.Helper()
				require.LessOrEqual(t, len(order.chunks), most)
				sum := 0
				for _, chunk := range order.chunks {
					require.NotEmpty(t, chunk)
					require.LessOrEqual(t, len(chunk), maxChunk)
					sum += len(chunk)
				}
				require.Equal(t, size, sum)
			}
			items := make([]*item, count)
			for i := range items {
				items[i] = &item{entry: Entry{ID: fmt.Sprint(i), DeadAt: time.Unix(int64(when(i)), 0)}}
				order.insert(items[i])
			}
			check(count, 4*count/maxChunk)
			for i, it := range items {
				if i%100 != 0 {
					order.remove(it)
				}
			}
			check(count/100, 8*count/100/maxChunk+1)
			for i := 0; i < count; i += 100 {
				order.remove(items[i])
			}
			check(0, 0)
		})
	}
}

func TestItemOrderAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var order itemOrder
		var model []*item
		for _, step := range rapid.SliceOfN(rapid.IntRange(-400, 1500), 1, 6).Draw(t, "steps") {
			from := rapid.IntRange(0, 3000).Draw(t, "from")
			for i := range max(step, -step) {
				it := &item{entry: Entry{ID: fmt.Sprint(from + i), DeadAt: time.Unix(int64(from+i)%50, 0)}}
				at, found := slices.BinarySearchFunc(model, positionOf(&it.entry), compareItem)
				switch {
				case step > 0 && !found:
					model = slices.Insert(model, at, it)
					order.insert(it)
				case step < 0 && found:
					model = slices.Delete(model, at, at+1)
					order.remove(it)
				}
			}
			var forth, back []*item
			for p := (place{}); order.item(p) != nil; p = order.next(p) {
				forth = append(forth, order.item(p))
			}
			for p := order.previous(order.end()); order.item(p) != nil; p = order.previous(p) {
				back = append(back, order.item(p))
			}
			slices.Reverse(back)
			all := slices.Collect(order.all)
			require.True(t, slices.Equal(model, forth) && slices.Equal(model, back) && slices.Equal(model, all))
		}
	})
}
