package cmd

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) doctor() *cobra.Command {
	var monitor, data string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is set up in a way that costs data or speed, and how to mend it",
		Long: `Find what is set up in a way that costs data or speed, and how to mend it. Without --data it asks the running system; with
it, it looks at a data folder and its disk, and asks nobody. It changes nothing.

Each line says ok, warn (it costs speed, or data in a rare case), bad (it costs data, or something is not served), or
unseen (it cannot be seen from here, and the line says how). The exit code is 1 if anything is bad.`,
		Example: "  perdure doctor\n  perdure doctor --monitor http://127.0.0.1:8222\n  perdure doctor --data /var/lib/perdure\n" +
			"  perdure doctor --json | jq 'select(.status == \"bad\")'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if u, err := url.Parse(monitor); monitor != "" && (err != nil || u.Host == "") {
				return usage(c, "--monitor is %q; want a URL, such as http://127.0.0.1:8222", monitor)
			}
			if data != "" && monitor != "" {
				return usage(c, "--data looks at a folder and --monitor at a running system; want one of them")
			}
			if data != "" {
				return a.examineFolder(data)
			}
			return a.examineSystem(c.Context(), monitor)
		},
	}
	c.Flags().StringVar(&monitor, "monitor", "", "URL of the server's HTTP monitor, which knows how it syncs")
	c.Flags().StringVar(&data, "data", "", "look at this data folder instead")
	return c
}

func (a *app) examineFolder(dir string) error {
	f, err := doctor.ReadFolder(dir)
	if err != nil {
		return err
	}
	f.Reserve = reserveOf(f.Total, reserveBytesMin)
	if f.Sync, err = doctor.MeasureSync(dir); err != nil {
		return err
	}
	return a.printFindings(doctor.ExamineFolder(f))
}

func (a *app) examineSystem(parent context.Context, monitor string) error {
	ctx, cancel := context.WithTimeout(parent, a.nats.timeout)
	defer cancel()
	ns := wire.Subjects(a.nats.namespace)
	s, err := jetstream.Dial(ctx, jetstream.Config{Dial: a.nats.dial, Namespace: ns, Name: "perdure doctor"})
	if err != nil {
		return err
	}
	defer s.Close()
	facts := doctor.Gather(ctx, s, ns, Version, monitor)
	if parent.Err() != nil { // what was not seen any more says nothing
		return context.Cause(parent)
	}
	return a.printFindings(doctor.Examine(&facts))
}

// printFindings prints what was found, and fails if some of it is bad.
func (a *app) printFindings(list []doctor.Finding) error {
	bad := 0
	table := a.rows("check", "status", "what")
	for _, f := range list {
		if f.Status == doctor.Bad {
			bad++
		}
		if !a.json {
			addFinding(table, f)
		} else if err := a.printJSON(f); err != nil {
			return err
		}
	}
	if !a.json {
		if err := table.end(); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d findings are bad", bad, len(list))
	}
	return nil
}

// addFinding adds a row; on a terminal the fix has one of its own, since lines are long.
func addFinding(table *rows, f doctor.Finding) {
	if !table.human {
		table.add(f.Check, string(f.Status), f.What, f.Fix)
		return
	}
	table.add(f.Check, string(f.Status), f.What)
	if f.Fix != "" {
		table.add("", "", "-> "+f.Fix)
	}
}

// report is what is told of the worker and of where it runs.
func (n *node) report() doctor.Report {
	h := &doctor.Host{Version: Version, Now: time.Now(), Sync: n.syncs}
	if f, err := doctor.ReadFolder(n.data); err == nil { // else it is not seen
		f.Reserve = reserveOf(f.Total, n.reserveMin)
		h.Folder = f
	}
	return doctor.Report{Status: n.worker.Status(), Host: h}
}
