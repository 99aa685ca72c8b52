package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// isTerminal tells whether a stream is one.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// rows prints a list: a table with headings on a terminal, plain rows separated by tabs in a pipe.
type rows struct {
	w     io.Writer
	tabs  *tabwriter.Writer // nil in a pipe
	human bool
}

func (a *app) rows(headings ...string) *rows {
	r := &rows{w: a.out, human: isTerminal(a.out)}
	if r.human {
		r.tabs = tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
		r.w = r.tabs
		r.add(strings.Split(strings.ToUpper(strings.Join(headings, "\t")), "\t")...)
	}
	return r
}

// add prints a row. What would break one is escaped: names may have any character.
func (r *rows) add(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`, "\x1b", `\x1b`).Replace(c)
	}
	fmt.Fprintln(r.w, strings.Join(cells, "\t"))
}

func (r *rows) end() error {
	if r.tabs != nil {
		return r.tabs.Flush()
	}
	return nil
}

// when is a time: how long ago on a terminal, ISO in a pipe.
func (r *rows) when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	ago := time.Since(t)
	switch {
	case !r.human:
		return t.UTC().Format(time.RFC3339Nano)
	case ago < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(ago.Seconds())))
	case ago < time.Hour:
		return fmt.Sprintf("%dm ago", int(ago.Minutes()))
	case ago < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(ago.Hours()))
	}
	return t.Local().Format("2006-01-02 15:04")
}

// printJSON prints a value on a line, or indented on a terminal.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if isTerminal(a.out) {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}
