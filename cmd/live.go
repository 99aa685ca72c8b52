package cmd

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// live prints rows as they come: on a terminal in columns that are wide enough for most, in a pipe separated by tabs.
type live struct {
	w     io.Writer
	human bool
}

func (a *app) live(headings ...string) *live {
	l := &live{w: a.out, human: isTerminal(a.out)}
	if l.human && !a.json {
		_ = l.add(strings.Split(strings.ToUpper(strings.Join(headings, "\t")), "\t")...) // the next one fails, too
	}
	return l
}

// liveWidth is how wide a column is at least on a terminal.
const liveWidth = 12

func (l *live) add(cells ...string) error {
	for i, c := range cells {
		if cells[i] = printable(c); l.human {
			cells[i] = fmt.Sprintf("%-*s", liveWidth, cells[i])
		}
	}
	line := strings.Join(cells, "\t")
	if l.human {
		line = strings.TrimRight(strings.Join(cells, "  "), " ")
	}
	_, err := fmt.Fprintln(l.w, line)
	return err
}

// when is a time: of the day on a terminal, ISO in a pipe.
func (l *live) when(t time.Time) string {
	if l.human {
		return t.Local().Format("15:04:05.000")
	}
	return t.UTC().Format(time.RFC3339Nano)
}
