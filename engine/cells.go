package engine

import (
	"iter"
	"maps"
	"slices"
)

// cells are values in memory by key: few in a list and more in a map, whose first group alone takes as much as all else
// of a small object. The zero value has none.
type cells struct {
	few  []keyedCell // unless many
	many map[string]cell
}

type keyedCell struct {
	key string
	cell
}

const fewMax = 8

func (cs *cells) find(key string) int {
	return slices.IndexFunc(cs.few, func(c keyedCell) bool { return c.key == key })
}

func (cs *cells) get(key string) (c cell, ok bool) {
	if cs.many != nil {
		c, ok = cs.many[key]
		return c, ok
	}
	if i := cs.find(key); i >= 0 {
		return cs.few[i].cell, true
	}
	return cell{}, false
}

func (cs *cells) set(key string, c cell) {
	if cs.many == nil {
		if i := cs.find(key); i >= 0 {
			cs.few[i].cell = c
			return
		}
		if len(cs.few) < fewMax {
			cs.few = append(cs.few, keyedCell{key, c})
			return
		}
		cs.many, cs.few = maps.Collect(cs.all()), nil
	}
	cs.many[key] = c
}

func (cs *cells) all() iter.Seq2[string, cell] {
	if cs.many != nil {
		return maps.All(cs.many)
	}
	return func(yield func(string, cell) bool) {
		for _, c := range cs.few {
			if !yield(c.key, c.cell) {
				return
			}
		}
	}
}

// drop removes a key.
func (cs *cells) drop(key string) {
	if cs.many != nil {
		if delete(cs.many, key); len(cs.many) == 0 {
			cs.many = nil
		}
		return
	}
	if i := cs.find(key); i >= 0 {
		if cs.few = slices.Delete(cs.few, i, i+1); len(cs.few) == 0 {
			cs.few = nil
		}
	}
}

// dropRead removes what is only read.
func (cs *cells) dropRead() {
	maps.DeleteFunc(cs.many, func(_ string, c cell) bool { return c.version == 0 })
	cs.few = slices.DeleteFunc(cs.few, func(c keyedCell) bool { return c.version == 0 })
}
