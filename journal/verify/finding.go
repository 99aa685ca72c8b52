package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/perdure/perdure/journal"
)

// Severity says what a [Finding] means for whoever relies on the log.
type Severity string

const (
	// Severe is a broken promise: something was lost, changed or applied twice, or cannot be read.
	Severe Severity = "severe"
	// Warning is what is there and does not count, or what the log alone cannot decide.
	Warning Severity = "warning"
)

// Rule names what does not hold; the package's comment has them all.
type Rule string

// The rules.
const (
	Format   Rule = "format"
	Subject  Rule = "subject"
	Epoch    Rule = "epoch"
	Fence    Rule = "fence"
	Stray    Rule = "stray"
	Version  Rule = "version"
	Prev     Rule = "prev"
	Time     Rule = "time"
	Once     Rule = "once"
	Snapshot Rule = "snapshot"
	Head     Rule = "head"
	Witness  Rule = "witness"

	Checkpoint Rule = "checkpoint"
)

// Finding is something that does not hold.
type Finding struct {
	Severity Severity    `json:"severity"`
	Stream   string      `json:"stream"`
	Seq      journal.Seq `json:"seq"`              // the message that shows it
	Object   string      `json:"object,omitempty"` // class/name
	Rule     Rule        `json:"rule"`
	What     string      `json:"what"`
}

func (f Finding) String() string {
	of := f.Object
	if of != "" {
		of = " " + of
	}
	return fmt.Sprintf("%s: stream %s, sequence %d%s: %s: %s", f.Severity, f.Stream, f.Seq, of, f.Rule, f.What)
}

// Report is what was read of a stream, and what does not hold in it.
type Report struct {
	Stream    string      `json:"stream,omitempty"`
	Last      journal.Seq `json:"last,omitempty"` // where the stream ended when the reading began
	Messages  int         `json:"messages"`
	Records   int         `json:"records"`
	Commits   int         `json:"commits"`
	Objects   int         `json:"objects"`
	Epochs    int         `json:"epochs"`
	Snapshots int         `json:"snapshots"` // snapshot records with all their parts
	Compared  int         `json:"compared"`  // of these, those whose storage was held against the records
	Severe    int         `json:"severe"`
	Warnings  int         `json:"warnings"`
	// Findings are in the order of the stream, at most [FindingsMax]; the numbers count all.
	Findings []Finding `json:"-"`
}

// FindingsMax is how many findings of one stream are told.
const FindingsMax = 1000

func (r *Report) add(f Finding) {
	if f.Severity == Severe {
		r.Severe++
	} else {
		r.Warnings++
	}
	if len(r.Findings) < FindingsMax {
		r.Findings = append(r.Findings, f)
	}
}

// Add adds another stream's numbers and findings.
func (r *Report) Add(of Report) {
	r.Messages += of.Messages
	r.Records += of.Records
	r.Commits += of.Commits
	r.Objects += of.Objects
	r.Epochs += of.Epochs
	r.Snapshots += of.Snapshots
	r.Compared += of.Compared
	r.Severe += of.Severe
	r.Warnings += of.Warnings
	r.Findings = append(r.Findings, of.Findings...)
}

// sorted puts the findings into the order of the stream.
func (r *Report) sorted() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Seq, b.Seq) })
}
