package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"
)

// isTerminal tells whether a stream is one.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isColored tells whether a stream shows colours and bold type.
func isColored(w any) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }

// printable escapes what a terminal would obey, and what would break a row: names, callers and errors may have any
// character in them.
func printable(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// rows prints a list: a table with headings on a terminal, plain rows separated by tabs in a pipe.
type rows struct {
	w     io.Writer // where rows go
	human bool

	// On a terminal.
	out   io.Writer
	table bytes.Buffer
	bold  bool
}

func (a *app) rows(headings ...string) *rows {
	return newRows(a.out, isTerminal(a.out), isColored(a.out), headings)
}

func newRows(out io.Writer, human, bold bool, headings []string) *rows {
	r := &rows{w: out, human: human, out: out, bold: bold}
	if human {
		r.w = tabwriter.NewWriter(&r.table, 0, 4, 2, ' ', 0)
		r.add(strings.Split(strings.ToUpper(strings.Join(headings, "\t")), "\t")...)
	}
	return r
}

func (r *rows) add(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(r.w, strings.Join(cells, "\t"))
}

func (r *rows) end() error {
	if !r.human {
		return nil
	}
	if err := r.w.(*tabwriter.Writer).Flush(); err != nil {
		return err
	}
	headings, rest, _ := strings.Cut(r.table.String(), "\n")
	if r.bold {
		// Only now: the table would count the codes as width.
		headings = "\x1b[1m" + headings + "\x1b[0m"
	}
	_, err := fmt.Fprintf(r.out, "%s\n%s", headings, rest)
	return err
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
