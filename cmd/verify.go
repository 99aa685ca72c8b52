package cmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/verify"
)

func (a *app) verify() *cobra.Command {
	var partition int
	c := &cobra.Command{
		Use:   "verify [CLASS[/NAME]]",
		Short: "Read the journal as a stranger does, and say what is wrong in it and where",
		Long: `Read the streams themselves, up to where they end now, by what the formats promise alone: every version is there once,
each record names the one before it, epochs follow each other lawfully, no request is applied twice, snapshot records
hold what the records come to. Of one object only its own messages are read. It needs no worker and wakes nothing.

The exit code is 1 if a finding is severe: something was lost, changed or applied twice, or cannot be read. A warning is
what is there and does not count. docs/operate.md says what to do.`,
		Example:           "  perdure verify\n  perdure verify counter/cart-99\n  perdure verify --partition 2 --json | jq -c 'select(.severity)'",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeObject,
		RunE: func(c *cobra.Command, args []string) error {
			cfg := verify.Config{Namespace: wire.Subjects(a.nats.namespace), Keep: a.keeps()}
			var err error
			switch of := strings.Join(args, ""); {
			case strings.Contains(of, "/"):
				if cfg.Class, cfg.Name, err = address(c, of); err == nil && c.Flags().Changed("partition") {
					err = usage(c, "--partition and the object %s both say where to look; want one of them", of)
				}
			case of != "":
				if cfg.Class, err = of, wire.CheckClass(of); err != nil {
					err = usage(c, "%v", err)
				}
			}
			if err != nil {
				return err
			}
			if !c.Flags().Changed("partition") {
				partition = allPartitions
			} else if partition < 0 {
				return usage(c, "--partition is %d; want one from 0; see: perdure status", partition)
			}
			return a.verifyAll(c, cfg, partition)
		},
	}
	c.Flags().IntVar(&partition, "partition", 0, "only this partition; see: perdure status")
	return c
}

const allPartitions = -1

// keeps is for how long this program's classes keep ids.
func (a *app) keeps() map[string]verify.Keep {
	keeps := map[string]verify.Keep{}
	for _, class := range a.classes {
		if b, err := class.Bind(); err == nil { // Run has told what is wrong
			keeps[b.Name] = verify.Keep{For: b.Limits.KeepIDs, Max: b.Limits.KeepIDsMax}
		}
	}
	return keeps
}

// verified is what a run of verify read.
type verified struct {
	verify.Report
	Streams          []verify.Report `json:"streams"`
	Seconds          float64         `json:"seconds"`
	RecordsPerSecond float64         `json:"records_per_second"`
}

// verifyAll verifies a partition, or all of them, one after another: so only one's objects are in memory.
func (a *app) verifyAll(c *cobra.Command, cfg verify.Config, only int) error {
	ctx := c.Context()
	connecting, cancel := context.WithTimeout(ctx, a.nats.timeout)
	defer cancel()
	s, named, err := a.open(connecting)
	if err != nil {
		return err
	}
	defer s.Close()
	cfg.Partitions = named.Partitions
	if cfg.Name != "" {
		only = wire.Partition(wire.Slot(cfg.Class, wire.Escape(cfg.Name)), named.Partitions)
	}
	from, to := only, only+1
	switch {
	case only == allPartitions:
		from, to = 0, named.Partitions
	case only >= named.Partitions:
		return usage(c, "there is no partition %d; there are %d, from 0", only, named.Partitions)
	}
	began := time.Now()
	var total verified
	for cfg.Partition = from; cfg.Partition < to && err == nil; cfg.Partition++ {
		var r verify.Report
		r, err = verify.Partition(ctx, s.Log(cfg.Partition), s.Meta(), cfg)
		total.Add(r)
		total.Streams = append(total.Streams, r)
	}
	total.Seconds = time.Since(began).Seconds()
	total.RecordsPerSecond = float64(total.Records) / max(total.Seconds, 1e-9)
	if err2 := a.printVerified(total); err == nil {
		err = err2
	}
	if err == nil && total.Severe > 0 {
		err = advise(fmt.Errorf("severe findings: %d: something was lost, changed or applied twice, or cannot be read", total.Severe),
			"docs/operate.md says what each means, and what to do")
	}
	return err
}

// printVerified prints findings as data, and what was read as a last line of JSON, or for people.
func (a *app) printVerified(v verified) error {
	if a.json {
		for _, f := range v.Findings {
			if err := a.printJSON(f); err != nil {
				return err
			}
		}
		return a.printJSON(struct {
			Summary verified `json:"summary"`
		}{v})
	}
	if len(v.Findings) > 0 {
		table := a.rows("severity", "stream", "seq", "object", "rule", "what")
		for _, f := range v.Findings {
			table.add(string(f.Severity), f.Stream, fmt.Sprint(f.Seq), f.Object, string(f.Rule), f.What)
		}
		if err := table.end(); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.err, "%d streams, %d messages: %d records with %d commits of %d objects, %d epochs, %d snapshot records (%d compared), in %.1f s (%.0f records/s)\n",
		len(v.Streams), v.Messages, v.Records, v.Commits, v.Objects, v.Epochs, v.Snapshots, v.Compared, v.Seconds, v.RecordsPerSecond)
	told := ""
	if all := v.Severe + v.Warnings; all > len(v.Findings) {
		told = fmt.Sprintf("; the first %d of each stream are told", verify.FindingsMax)
	}
	fmt.Fprintf(a.err, "severe findings: %d, warnings: %d%s\n", v.Severe, v.Warnings, told)
	return nil
}
