// Scale measures what bounds a namespace: what each subject, stream, subscription and worker costs the servers, in memory, processor and time
// of a restart. docs/scale.md has what it found.
//
//	go run ./internal/scale [-rows subjects,streams,replicas,subscriptions,routes,objects,workers,pair] [-for 8s]
//
// Servers run in a process of their own, which is asked for its memory and time, so that what workers cost is told apart.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		if run := children[os.Args[1]]; run != nil {
			if err := run(os.Args[2:], os.Stdin, os.Stdout); err != nil {
				fatal(err)
			}
			return
		}
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	only := flag.String("rows", strings.Join(names, ","), "what is measured")
	idle := flag.Duration("for", 8*time.Second, "how long an idle system is watched")
	flag.Func("workers", "how many workers the row of that name has; 1,2,5,10,20,50,100", func(list string) error {
		crews = nil
		return json.Unmarshal([]byte("["+list+"]"), &crews)
	})
	flag.Parse()
	for _, name := range strings.Split(*only, ",") {
		if err := measure(name, *idle); err != nil {
			fatal(fmt.Errorf("%s: %w", name, err))
		}
	}
}

// row is one thing that is measured at several sizes, each on servers that are new.
type row struct {
	name    string
	measure func(dir string, idle time.Duration) error
}

var rows = []row{
	{"subjects", subjects},
	{"streams", func(dir string, idle time.Duration) error { return streams(dir, idle, 1, 1, 17, 65, 257) }},
	{"replicas", func(dir string, idle time.Duration) error { return streams(dir, idle, 3, 1, 17, 65) }},
	{"subscriptions", func(dir string, _ time.Duration) error { return subscriptions(dir, 1) }},
	{"routes", func(dir string, _ time.Duration) error { return subscriptions(dir, 3) }},
	{"objects", objects},
	{"workers", workers},
	{"pair", pair},
}

// crews are the sizes of the row workers.
var crews = []int{1, 2, 5, 10, 20, 50, 100}

// children are what the program is in processes of its own.
var children = map[string]func(args []string, in io.Reader, out io.Writer) error{serversCommand: runServers, workerCommand: runWorker}

func measure(name string, idle time.Duration) error {
	for _, r := range rows {
		if r.name != name {
			continue
		}
		dir, err := os.MkdirTemp("", "perdure-scale")
		if err != nil {
			return err
		}
		fmt.Printf("\n%s\n\n", name)
		return errors.Join(r.measure(dir, idle), os.RemoveAll(dir))
	}
	return errors.New("there is no such row")
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "scale:", err)
	os.Exit(1)
}
