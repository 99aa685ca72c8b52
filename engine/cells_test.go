package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/perdure/perdure/journal"
)

// TestCellsAreAMap holds cells against a map, with few keys and with more than the list takes.
func TestCellsAreAMap(t *testing.T) {
	t.Parallel()
	for keys := 1; keys < 4*fewMax; keys += 3 {
		r := rand.New(rand.NewPCG(1, uint64(keys)))
		var cs cells
		model := map[string]cell{}
		for step := range 2000 {
			key := fmt.Sprint(r.IntN(keys))
			switch r.IntN(20) {
			case 0:
				cs.dropRead()
				maps.DeleteFunc(model, func(_ string, c cell) bool { return c.version == 0 })
			case 1, 2, 3, 4, 5, 6, 7, 8:
				cs.drop(key)
				delete(model, key)
			default:
				c := cell{[]byte{byte(step)}, journal.Version(r.IntN(2))}
				cs.set(key, c)
				model[key] = c
			}
			have, ok := cs.get(key)
			want, there := model[key]
			if all := maps.Collect(cs.all()); !reflect.DeepEqual(all, model) || ok != there || !reflect.DeepEqual(have, want) {
				t.Fatalf("%d keys, step %d: %v, want %v", keys, step, all, model)
			}
		}
		for key := range keys {
			cs.drop(fmt.Sprint(key))
		}
		if cs.many != nil || len(cs.few) > 0 {
			t.Fatalf("%d keys are dropped, and %v, %v are left", keys, cs.few, cs.many)
		}
	}
}
