package journal

import "fmt"

// Format is the highest format that this program reads: the highest min_reader, and what its lease says.
//
// A format is a set of kinds of change. Whatever is written says the lowest one that reads it, not that of the program: so
// a newer program beside an older one writes what that reads, until something needs more.
const Format = 1

// FormatBase is the format of what has no newer kind in it.
const FormatBase = 1

// FormatOf is the format that a reader of a kind of change needs. A new kind is one more case here, with a new [Format]: then no
// worker writes it before all of them read it.
func FormatOf(kind string) int {
	switch kind {
	case Put, Delete, Event:
		return FormatBase
	}
	panic(fmt.Sprintf("journal: kind of change %q has no format", kind)) // what this program makes is listed
}

// MinReader is the format that a reader of the commit needs.
func (c *Commit) MinReader() int {
	format := FormatBase
	for i := range c.Changes {
		format = max(format, FormatOf(c.Changes[i].Kind))
	}
	return format
}

func newer(minReader int) error {
	return fmt.Errorf("record needs a reader of format %d, this program reads %d: %w", minReader, Format, ErrNewer)
}
