package cmd

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/cluster"
	"github.com/perdure/perdure/internal/drill"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// drillFlags are what `perdure drill` takes.
type drillFlags struct {
	local, servers, gateways               int
	sync, report, body, prefix             string
	urls, kill, targets                    []string
	killBy, restartBy, pauseBy, continueBy string
	class, method, invariant               string
	objects, callers                       int
	rate                                   float64
	long, every, down, pause               time.Duration
	pauseOnly, standby                     bool
	seed                                   uint64
	kinds                                  map[drill.Kind]bool
	chosen                                 []drill.Target
}

func (a *app) drill() *cobra.Command {
	var f drillFlags
	c := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse recovery: kill what runs the objects under load, and hold every answer against the journal",
		Long: `Rehearse recovery. It calls objects of its own, kills or pauses processes meanwhile, one at a time, and at the end holds
every answer against the journal and the objects: what was acknowledged, what of it is lost, applied twice or out of order,
and for how long objects did not answer.

--local 1 starts a perdure dev of its own in a temporary folder and kills that; --local 3 a cluster of three workers, with
--servers and --gateways, each a process, and with --standby workers that follow each other's partitions. A running system is disturbed only by commands
that you give: {} in them is the name of one of the --target, and no shell reads them. Without targets it kills nothing: do
it by hand. The objects, <prefix>0, <prefix>1 and so on, are there afterwards.

A --class of your own needs a method that changes the object whenever it succeeds. --invariant is a method that is asked of
each object at the end; it answers true or {"ok":true} if all is well.

The exit code is 1 if anything was lost, applied twice, out of order or wrong in the end, 5 if the drill could not be run or
checked. Ctrl-C ends the load early; what was done is checked. docs/drill.md is the runbook.`,
		Example: "  perdure drill --local 1 --for 1m --report drill.html\n" +
			"  perdure drill --url http://gateway:8080 --target worker/w1,worker/w2 --kill-command 'docker kill {}' --restart-command 'docker start {}'\n" +
			"  perdure drill --class account --method deposit --body '{\"cents\":1}' --invariant sound",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			return a.runDrill(c, &f)
		},
	}
	f.add(c)
	return c
}

func (f *drillFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.IntVar(&f.local, "local", 0, "start a system of its own: 1: perdure dev; more: a cluster with so many workers; 0: drill the one that runs")
	flags.IntVar(&f.servers, "servers", 1, "of a cluster of its own: NATS servers, 1, 3 or 5")
	flags.IntVar(&f.gateways, "gateways", 0, "of a cluster of its own: gateways, through which calls go then")
	flags.BoolVar(&f.standby, "standby", false, "of a cluster of its own: workers follow the partitions that they would own next")
	flags.StringVar(&f.sync, "sync", "always", "of --local 1: always, or how often the log is synced to disk")
	flags.StringSliceVar(&f.urls, "url", nil, "call through these gateways, over HTTP; default: over NATS")
	flags.StringSliceVar(&f.targets, "target", nil, "what may be killed, as KIND/NAME; the kinds are worker, server and gateway")
	flags.StringVar(&f.killBy, "kill-command", "", "command that kills a target at once, as SIGKILL does")
	flags.StringVar(&f.restartBy, "restart-command", "", "command that starts it again")
	flags.StringVar(&f.pauseBy, "pause-command", "", "command that stops a target as SIGSTOP does")
	flags.StringVar(&f.continueBy, "continue-command", "", "command that lets it go on")
	flags.StringSliceVar(&f.kill, "kill", []string{"all"}, "kinds to choose from: workers, servers, gateways or all")
	flags.DurationVar(&f.long, "for", time.Minute, "how long the load goes on")
	flags.DurationVar(&f.every, "every", 10*time.Second, "from one kill to the next, on the average")
	flags.DurationVar(&f.down, "down", 2*time.Second, "from a kill to the restart")
	flags.DurationVar(&f.pause, "pause", 0, "pause instead of killing, half of the times, for so long")
	flags.BoolVar(&f.pauseOnly, "pause-only", false, "pause every time")
	flags.Uint64Var(&f.seed, "seed", 0, "repeats which target is killed when; default: by chance")
	flags.StringVar(&f.class, "class", "counter", "class of the objects")
	flags.StringVar(&f.method, "method", "increment", "method that is called")
	flags.StringVar(&f.body, "body", "", "its argument, in JSON")
	flags.StringVar(&f.invariant, "invariant", "", "method that tells at the end whether all is well with an object")
	flags.StringVar(&f.prefix, "prefix", "", "of the objects' names; default: drill-, and a name of this run")
	flags.IntVar(&f.objects, "objects", 256, "how many objects are called")
	flags.IntVar(&f.callers, "callers", 256, "callers, each with one call under way")
	flags.Float64Var(&f.rate, "rate", 1000, "calls per second of all callers together, at most; 0: as many as there can be")
	flags.StringVar(&f.report, "report", "", "write the report to this file, as one HTML page")
}

// What a drill may take.
const (
	drillWorkersMax = 16
	drillObjectsMax = 100_000
	drillCallersMax = 10_000
	drillWaitsMax   = 20_000_000 // objects times disturbances: each keeps four bytes
)

func (f *drillFlags) check(c *cobra.Command) (err error) {
	switch set := c.Flags().Changed; {
	case f.local < 0 || f.local > drillWorkersMax:
		return usage(c, "--local is %d; want 1 to %d workers, or 0 to drill the system that runs", f.local, drillWorkersMax)
	case f.local < 2 && (set("servers") || set("gateways") || set("standby")):
		return usage(c, "--servers, --gateways and --standby are for a cluster, which --local starts with 2 workers or more")
	case f.local > 1 && set("sync"):
		return usage(c, "--sync is for --local 1; the servers of a cluster sync always")
	case f.servers != 1 && f.servers != 3 && f.servers != 5 || f.gateways < 0 || f.gateways > drillWorkersMax:
		return usage(c, "--servers is %d, want 1, 3 or 5; --gateways is %d, want 0 to %d", f.servers, f.gateways, drillWorkersMax)
	case f.local > 0 && (len(f.targets) > 0 || set("server") || set("context") || set("url")):
		return usage(c, "--local starts a system of its own; --target, --url, --server and --context are for one that runs")
	case f.local == 0 && set("sync"):
		return usage(c, "--sync is for a system that --local starts")
	case f.objects < 1 || f.objects > drillObjectsMax:
		return usage(c, "--objects is %d; want 1 to %d", f.objects, drillObjectsMax)
	case f.callers < 1 || f.callers > drillCallersMax:
		return usage(c, "--callers is %d; want 1 to %d", f.callers, drillCallersMax)
	case f.rate < 0:
		return usage(c, "--rate is %v; want calls per second, or 0 for as many as there can be", f.rate)
	case f.long < time.Second:
		return usage(c, "--for is %v; want at least 1s", f.long)
	case f.every < 100*time.Millisecond:
		return usage(c, "--every is %v; want at least 100ms", f.every)
	case f.down < 0 || f.pause < 0:
		return usage(c, "--down is %v and --pause %v; want no less than 0", f.down, f.pause)
	case f.pauseOnly && f.pause == 0:
		return usage(c, "--pause-only needs --pause, which says for how long")
	case f.objects*int(f.long/f.every+1) > drillWaitsMax:
		return usage(c, "%d objects and a kill every %v for %v are too many to keep; want fewer objects, or a longer --every", f.objects, f.every, f.long)
	case f.counts() && f.body != "":
		return usage(c, "--body is for other methods: the counter is counted by ones")
	case f.body != "" && !json.Valid([]byte(f.body)):
		return usage(c, "--body is no JSON: %.100s", f.body)
	}
	if _, err := syncInterval(f.sync); err != nil {
		return usage(c, "%v", err)
	}
	for _, u := range f.urls {
		if at, err := url.Parse(u); err != nil || at.Host == "" {
			return usage(c, "--url is %q; want the URL of a gateway, such as http://127.0.0.1:8080", u)
		}
	}
	if err := cmp.Or(wire.CheckClass(f.class), wire.CheckIdentifier(f.method)); err != nil {
		return usage(c, "%v", err)
	}
	return f.choose(c)
}

// choose finds the targets of the kinds that --kill names, and wants the commands that they need.
func (f *drillFlags) choose(c *cobra.Command) error {
	f.kinds = map[drill.Kind]bool{}
	for _, name := range f.kill {
		kind := drill.Kind(strings.TrimSuffix(name, "s"))
		for _, k := range drill.Kinds {
			f.kinds[k] = f.kinds[k] || name == "all" || k == kind
		}
		if name != "all" && !slices.Contains(drill.Kinds, kind) {
			return usage(c, "--kill is %q; want workers, servers, gateways or all, with commas between", name)
		}
	}
	for _, name := range f.targets {
		t, err := drill.ParseTarget(name)
		if err != nil {
			return usage(c, "--target: %v", err)
		}
		if f.kinds[t.Kind] {
			f.chosen = append(f.chosen, t)
		}
	}
	switch {
	case len(f.targets) == 0 && f.killBy+f.restartBy+f.pauseBy+f.continueBy != "":
		return usage(c, "there are commands, and nothing that they may be done to: name it with --target, such as --target worker/w1")
	case len(f.targets) > 0 && len(f.chosen) == 0:
		return usage(c, "no --target is one of --kill %s", strings.Join(f.kill, ","))
	case len(f.chosen) > 0 && !f.pauseOnly && (f.killBy == "" || f.restartBy == ""):
		return usage(c, "to kill a target takes --kill-command and --restart-command")
	case len(f.chosen) > 0 && f.pause > 0 && (f.pauseBy == "" || f.continueBy == ""):
		return usage(c, "to pause a target takes --pause-command and --continue-command")
	}
	return nil
}

// runDrill drills, prints what came of it, and writes the report, also of a drill that failed.
func (a *app) runDrill(c *cobra.Command, f *drillFlags) (err error) {
	defer func() {
		if exitCode(c.Context(), err) == exitFailed && !errors.Is(err, errDrilled) { // which has a code of its own
			err = advise(engine.Errorf(engine.Unavailable, "the drill could not be run or checked to its end: %w", err), "%s", adviceFor(err))
		}
	}()
	system, end, err := a.drilled(c.Context(), f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	nc, err := a.nats.dial(nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // what fails is a failed try
	if err != nil {
		return err
	}
	defer nc.Close()
	cfg, err := a.drillConfig(c.Context(), f, nc)
	if err != nil {
		return err
	}
	var targets []drill.Target
	if system != nil {
		cfg.System, targets = system, system.Targets()
	}
	schedule := drill.Schedule{For: f.long, Every: f.every, Down: f.down, Pause: f.pause, Kills: !f.pauseOnly}
	cfg.Plan = drill.NewPlan(f.seed, schedule, targets)
	about := drill.About{Version: Version, Server: nc.ConnectedServerVersion(), Settings: f.settings(c, targets)}
	result, err := drill.Run(c.Context(), cfg)
	if err != nil {
		about.Error = err.Error()
	}
	if f.report != "" {
		err = errors.Join(err, writeReport(f.report, result, about))
	}
	if err == nil || result.Acknowledged > 0 {
		err = errors.Join(err, a.printDrilled(result))
	}
	if err == nil && result.Verdict == drill.Failed {
		return advise(errDrilled, "docs/drill.md says what each means; `perdure journal` and `perdure verify` show more")
	}
	return err
}

var errDrilled = errors.New("the drill failed: something was lost, applied twice, out of order or wrong in the end")

// drilled is what is disturbed, nil if that is nothing. end ends what was started.
func (a *app) drilled(ctx context.Context, f *drillFlags) (system drill.System, end func() error, err error) {
	end = func() error { return nil }
	if f.local == 0 {
		if len(f.chosen) > 0 {
			by := map[drill.Act]string{drill.Kill: f.killBy, drill.Restart: f.restartBy, drill.Pause: f.pauseBy, drill.Continue: f.continueBy}
			system = &drill.Commands{List: f.chosen, By: by}
		}
		return system, end, nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "perdure-drill-")
	if err != nil {
		return nil, nil, err
	}
	local, err := f.own(program, dir)
	if err == nil {
		end = func() error { return errors.Join(local.Stop(), os.RemoveAll(dir)) }
		a.nats.server, a.nats.context, f.urls = local.NATS(), "", local.HTTP()
		err = local.Start(ctx)
	}
	if err == nil {
		err = a.owned(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, end(), os.RemoveAll(dir))
	}
	return local, end, nil
}

// ownedWithin is how long workers may take to share the partitions.
const ownedWithin = time.Minute

// owned waits until the journal names an owner of each partition.
func (a *app) owned(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownedWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.haveOwners(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the system does not serve: %w", err)
		}
	}
}

func (a *app) haveOwners(ctx context.Context) error {
	s, named, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	for p := range named.Partitions {
		m, err := s.Log(p).Last(ctx, wire.Subjects(a.nats.namespace).Epoch(p))
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		if r, err := journal.DecodeEpoch(m.Data); err != nil || r.Release {
			return errors.Join(err, fmt.Errorf("partition %d has no owner", p))
		}
	}
	return nil
}

// own is a system of the drill's own: everything in one process, or a cluster.
func (f *drillFlags) own(program, dir string) (drill.Own, error) {
	if f.local == 1 {
		return drill.NewLocal(program, dir, "--sync", f.sync)
	}
	cfg := cluster.Config{Dir: dir, Program: program, Servers: f.servers, Workers: f.local, Gateways: f.gateways}
	if f.standby {
		cfg.WorkerArgs = []string{"--standby"}
	}
	return drill.NewCluster(cfg, f.kinds)
}

// drillConfig is a drill of the namespace that the connection leads to, without disturbances.
func (a *app) drillConfig(ctx context.Context, f *drillFlags, nc *nats.Conn) (cfg drill.Config, err error) {
	finding, cancel := context.WithTimeout(ctx, a.nats.timeout)
	defer cancel()
	s, named, err := a.open(finding)
	if err != nil {
		return cfg, err
	}
	s.Close()
	if f.seed == 0 {
		f.seed = mathrand.Uint64N(1e6) + 1
	}
	run := strings.ToLower(rand.Text()[:8])
	ns := wire.Subjects(a.nats.namespace)
	cfg = drill.Config{
		Run: run, Namespace: ns, Partitions: named.Partitions, Transport: natsbus.NewClient(nc, ns).HearOwners(),
		Journal: func(ctx context.Context) (journal.Session, error) {
			return jetstream.Dial(ctx, jetstream.Config{Dial: a.nats.dial, Namespace: ns, Name: "perdure drill"})
		},
		Class: f.class, Method: f.method, Body: []byte(f.body), Invariant: f.invariant, Prefix: cmp.Or(f.prefix, "drill-"+run+"-"),
		Objects: f.objects, Callers: f.callers, Rate: f.rate, For: f.long,
	}
	if f.counts() {
		cfg.Value = "value"
	}
	if len(f.urls) > 0 {
		cfg.Transport = drill.NewHTTP(f.urls, f.callers)
	}
	show := a.showDrill()
	cfg.Event, cfg.Progress = show.event, show.progress
	return cfg, nil
}

// counts tells whether the class is the counter, of which more is known than of others.
func (f *drillFlags) counts() bool { return f.class == "counter" && f.method == "increment" }

func writeReport(path string, r *drill.Result, about drill.About) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return errors.Join(drill.WriteReport(file, r, about), file.Close())
}
