package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say what to measure. All but Only, Partitions, Profile and Progress are required.
type Options struct {
	Program     string        // the binary to run as the system: one whose `dev` takes --yardsticks
	Only        []string      // rows whose name has one of these in it; empty: all but the large ones
	Rounds      int           // of each figure and its yardstick
	For         time.Duration // of each round
	Callers     int           // over NATS
	HTTPCallers int           // over HTTP, each with a connection
	Connections int           // of the callers over NATS together
	Objects     int           // where a row has many
	Restart     int           // objects before the restart
	Partitions  int           // of each system; 0 is what `dev` makes by itself
	Profile     string        // a folder for profiles of the system under each figure
	Progress    func(row string)
}

// bench is one run.
type bench struct {
	Options
	dir    string
	shared map[string]*process // by sync mode, for the rows that put load on one
}

// row is a figure that can be measured.
type row struct {
	Row
	measure func(b *bench, ctx context.Context, r *Row) error
}

// Names are those of all rows, in their order.
func Names() (names []string) {
	for _, r := range rows(Options{}) {
		names = append(names, r.Name)
	}
	return names
}

// Run measures row by row and gives each to emit. It keeps everything in a temporary folder, and leaves nothing behind.
func Run(ctx context.Context, o Options, emit func(Row) error) (err error) {
	chosen := slices.DeleteFunc(rows(o), func(r row) bool { return !r.chosen(o.Only) })
	if len(chosen) == 0 {
		return fmt.Errorf("no row has %s in its name; there are: %s", strings.Join(o.Only, " or "), strings.Join(Names(), " "))
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o750); err != nil {
			return fmt.Errorf("folder for profiles: %w", err)
		}
	}
	b := &bench{Options: o, shared: map[string]*process{}}
	if b.dir, err = os.MkdirTemp("", "perdure-bench-"); err != nil {
		return err
	}
	defer func() {
		b.stopShared()
		err = errors.Join(err, os.RemoveAll(b.dir))
	}()
	for _, r := range chosen {
		if o.Progress != nil {
			o.Progress(r.What)
		}
		if err := r.measure(b, ctx, &r.Row); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		r.settle()
		if err := emit(r.Row); err != nil {
			return err
		}
	}
	return nil
}

func (r *row) chosen(only []string) bool {
	if len(only) == 0 {
		return !strings.HasPrefix(r.Name, largeRow)
	}
	return slices.ContainsFunc(only, func(part string) bool { return strings.Contains(r.Name, part) })
}

// The two sync modes, as `dev` takes them.
const (
	relaxed = "100ms"
	always  = "always"
)

// system is the shared system of a sync mode, started when the first row asks for it.
func (b *bench) system(ctx context.Context, sync string) (*process, *callers, error) {
	s := b.shared[sync]
	if s == nil {
		var err error
		if s, err = b.process(sync, "--sync", sync); err != nil {
			return nil, nil, err
		}
		if err := s.begin(ctx); err != nil {
			return nil, nil, err
		}
		b.shared[sync] = s
	}
	cs, err := b.callers(s)
	return s, cs, err
}

// process prepares a system with a folder of that name.
func (b *bench) process(name string, args ...string) (*process, error) {
	return newProcess(b.Program, filepath.Join(b.dir, name), append(args, "--partitions", strconv.Itoa(b.Partitions))...)
}

// callers are those over NATS, made once for each life of the process.
func (b *bench) callers(s *process) (*callers, error) {
	if s.callers != nil {
		return s.callers, nil
	}
	conns, err := s.connect(b.Connections)
	if err == nil {
		s.callers, err = newCallers(conns, b.Callers)
	}
	return s.callers, err
}

// stopShared ends the shared systems: rows with a system of their own have the machine to themselves.
func (b *bench) stopShared() {
	for sync, s := range b.shared {
		s.kill()
		delete(b.shared, sync)
	}
}

// own runs f with a system of its own, which f may kill and start again.
func (b *bench) own(ctx context.Context, name string, f func(*process) error, args ...string) error {
	b.stopShared()
	s, err := b.process(name, args...)
	if err != nil {
		return err
	}
	defer func() {
		s.kill()
		_ = os.RemoveAll(s.dir) // all goes at the end; this is for the disk meanwhile
	}()
	return f(s)
}
