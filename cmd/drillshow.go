package cmd

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/drill"
)

// drillShow tells of a drill while it runs, on standard error: on a terminal every second, else every few.
type drillShow struct {
	every time.Duration
	mu    sync.Mutex // events and progress come from two goroutines
	lines *live
	last  time.Duration
}

func (a *app) showDrill() *drillShow {
	s := &drillShow{lines: &live{w: a.err, human: isTerminal(a.err)}, every: 5 * time.Second}
	if s.lines.human {
		s.every = time.Second
	}
	_ = s.lines.add("time", "answers/s", "answered", "unknown", "under way", "failed tries", "done to") // it is told to nobody if it fails
	return s
}

func (s *drillShow) event(e drill.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.lines.add(seconds(e.At), "", "", "", "", "", string(e.Act)+" "+e.Target.String())
}

func (s *drillShow) progress(p drill.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.At-s.last < s.every-100*time.Millisecond {
		return
	}
	s.last = p.At
	_ = s.lines.add(seconds(p.At), fmt.Sprintf("%.0f", p.Rate), fmt.Sprint(p.Acknowledged+p.Refused), fmt.Sprint(p.Unknown),
		fmt.Sprint(p.Waiting), fmt.Sprint(p.Failures), "")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// printDrilled prints what came of a drill.
func (a *app) printDrilled(r *drill.Result) error {
	if a.json {
		return a.printJSON(r)
	}
	fmt.Fprintln(a.err)
	if len(r.Findings) > 0 {
		t := a.rows("fault", "object", "call", "what")
		for _, f := range r.Findings {
			t.add(string(f.Fault), f.Object, f.Call, f.What)
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	if len(r.Disturbances) > 0 {
		t := a.rows("no", "at", "done", "to", "partitions", "objects", "p50", "p99", "longest", "elsewhere", "all serve after")
		for i, d := range r.Disturbances {
			back := "-"
			if d.Back > 0 {
				back = d.Back.String()
			}
			t.add(fmt.Sprint(i+1), d.At.String(), string(d.Act), d.Target.String(), fmt.Sprint(d.Partitions), fmt.Sprint(d.Unanswered.Of),
				d.Unanswered.P50.String(), d.Unanswered.P99.String(), d.Unanswered.Max.String(), d.Others.String(), back)
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	t := a.rows("what", "how many")
	for _, row := range r.Rows() {
		t.add(row.What, row.Value)
	}
	return t.end()
}

// settings are what a drill was told, for its report.
func (f *drillFlags) settings(c *cobra.Command, targets []drill.Target) []drill.Row {
	names := []string{}
	for _, t := range targets {
		names = append(names, t.String())
	}
	how := fmt.Sprintf("every %v on the average, killed for %v", f.every, f.down)
	switch {
	case len(targets) == 0:
		names, how = []string{"nothing"}, "by hand, if at all"
	case f.pauseOnly:
		how = fmt.Sprintf("every %v on the average, paused for %v", f.every, f.pause)
	case f.pause > 0:
		how = fmt.Sprintf("every %v on the average, by chance killed for %v or paused for %v", f.every, f.down, f.pause)
	}
	through := "NATS"
	if len(f.urls) > 0 {
		through = "HTTP, " + strings.Join(f.urls, ", ")
	}
	rate := "as many calls as there can be"
	if f.rate > 0 {
		rate = fmt.Sprintf("at most %v calls/s", f.rate)
	}
	system := "one that ran"
	switch {
	case f.local == 1:
		system = "perdure dev, started for the drill, --sync " + f.sync
	case f.local > 1:
		system = fmt.Sprintf("a cluster on one machine, started for the drill: %d servers, %d workers, %d gateways", f.servers, f.local, f.gateways)
	}
	return []drill.Row{
		{What: "System", Value: system}, {What: "Calls", Value: f.class + " " + f.method + " " + f.body},
		{What: "Load", Value: fmt.Sprintf("%d callers, %d objects, %s, for %v", f.callers, f.objects, rate, f.long)},
		{What: "Through", Value: through},
		{What: "Disturbed", Value: strings.Join(names, ", ")}, {What: "How", Value: how}, {What: "Seed", Value: fmt.Sprint(f.seed)},
		{What: "Drill ran on", Value: fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())},
	}
}
