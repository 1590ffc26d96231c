package idempotency

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Few tags at both ends of the table make probe sequences that meet and wrap
// around.
func TestIndexAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x index
		model := map[uint32]uint32{} // tag by number
		tags := rapid.SampledFrom([]uint32{0, 1, 2, 3, 62, 63, 64, 127, 128, 1 << 31, 1<<32 - 1})
		numbers := rapid.Uint32Range(0, 100)
		find := func(tag, number uint32) bool {
			found, ok := x.find(tag, func(n uint32) bool { return n == number })
			return ok && found == number
		}
		known := func(t *rapid.T) (number uint32, ok bool) {
			if len(model) == 0 {
				return 0, false
			}
			return rapid.SampledFrom(slices.Sorted(maps.Keys(model))).Draw(t, "known"), true
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				number, tag := numbers.Draw(t, "number"), tags.Draw(t, "tag")
				if _, taken := model[number]; !taken {
					x.insert(tag, number)
					model[number] = tag
				}
			},
			"remove": func(t *rapid.T) {
				if number, ok := known(t); ok {
					x.remove(model[number], number)
					delete(model, number)
				}
			},
			"renumber": func(t *rapid.T) {
				to := numbers.Draw(t, "to")
				if _, taken := model[to]; taken {
					return
				}
				if from, ok := known(t); ok {
					x.renumber(model[from], from, to)
					model[to] = model[from]
					delete(model, from)
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), x.used)
				for number, tag := range model {
					require.True(t, find(tag, number), "number %d", number)
				}
				require.False(t, find(5, 1000))
			},
		})
	})
}

func TestIndexGivesMemoryBack(t *testing.T) {
	var x index
	for number := range uint32(10_000) {
		x.insert(number*2_654_435_761, number)
	}
	require.Len(t, x.slots, 16_384)
	for number := range uint32(10_000) {
		x.remove(number*2_654_435_761, number)
	}
	require.Len(t, x.slots, minSlots)
	require.Zero(t, x.used)
}
