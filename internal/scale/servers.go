package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/freeport"
	"github.com/perdure/perdure/internal/wire"
)

// serversCommand is the argument by which the program is servers: their folder, and how many.
const serversCommand = "servers"

// usage is what a process has taken until now.
type usage struct {
	URL           string        `json:"url"`
	Heap          uint64        `json:"heap"` // live, after a collection
	Goroutines    int           `json:"goroutines"`
	CPU           time.Duration `json:"cpu"`
	Messages      int64         `json:"messages"` // that clients sent
	Subscriptions uint32        `json:"subscriptions"`
	Owned         int           `json:"owned"` // partitions of a worker
}

func (u usage) mib() float64 { return float64(u.Heap) / (1 << 20) }

// own is the usage of this process.
func own() usage {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers held
	runtime.ReadMemStats(&m)
	return usage{Heap: m.HeapAlloc, Goroutines: runtime.NumGoroutine(), CPU: processor()}
}

func processor() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// runServers runs servers until its input ends. Each line that comes is answered with their usage, and so is the start.
func runServers(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("want a folder and a number of servers")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	list, err := startServers(args[0], n)
	defer func() {
		for _, s := range list {
			s.Shutdown()
		}
		for _, s := range list {
			s.WaitForShutdown()
		}
	}()
	if err != nil {
		return err
	}
	return answerAll(in, out, func() (usage, error) {
		u := own()
		u.URL = list[0].ClientURL()
		for _, s := range list {
			u.Subscriptions += s.NumSubscriptions()
			v, err := s.Varz(nil)
			if err != nil {
				return u, err
			}
			u.Messages += v.InMsgs
		}
		return u, nil
	})
}

func startServers(dir string, n int) (list []*server.Server, err error) {
	routes, err := freeport.Find(n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		name := fmt.Sprint("s", i)
		o := &server.Options{ServerName: name, Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 1 << 50,
			StoreDir: filepath.Join(dir, name), MaxPayload: 8 << 20, Debug: false}
		if n > 1 {
			o.Cluster = server.ClusterOpts{Name: "scale", Host: "127.0.0.1", Port: routes[i]}
			for _, port := range routes {
				o.Routes = append(o.Routes, server.RoutesFromStr(fmt.Sprintf("nats://127.0.0.1:%d", port))...)
			}
		}
		s, err := server.NewServer(o)
		if err != nil {
			return list, err
		}
		from, to := wire.DefaultNamespace.Mapping()
		if err := s.GlobalAccount().AddMapping(from, to); err != nil {
			return list, err
		}
		list = append(list, s)
		go s.Start()
	}
	for _, s := range list {
		if !s.ReadyForConnections(startFor) {
			return list, errors.New("a server is not ready")
		}
	}
	return list, nil
}

const startFor = time.Minute

// servers are servers in a process of their own.
type servers struct {
	*child
	nc   *nats.Conn
	took time.Duration // until JetStream had all its streams
}

// start starts servers over a folder, and waits until they have as many streams as are expected there.
func start(dir string, n, streams int) (s *servers, err error) {
	began := time.Now()
	s = &servers{}
	if s.child, err = spawn(nil, serversCommand, dir, strconv.Itoa(n)); err != nil {
		return nil, err
	}
	u, err := s.answer()
	if err == nil {
		s.nc, err = nats.Connect(u.URL)
	}
	if err == nil {
		err = s.await(streams)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	s.took = time.Since(began)
	return s, nil
}

// await waits until JetStream answers and has so many streams, each with a leader.
func (s *servers) await(streams int) error {
	var err error
	for end := time.Now().Add(startFor); time.Now().Before(end); <-time.After(2 * time.Millisecond) {
		var m *nats.Msg
		if m, err = s.nc.Request("$JS.API.STREAM.NAMES", nil, time.Second); err != nil {
			continue
		}
		var list struct {
			Total int             `json:"total"`
			Error json.RawMessage `json:"error"`
		}
		if err = json.Unmarshal(m.Data, &list); err == nil && list.Error == nil && list.Total >= streams {
			return nil
		}
		err = fmt.Errorf("JetStream has %d streams, want %d: %s", list.Total, streams, list.Error)
	}
	return err
}

// idle is what the servers, and this process, take a second while nobody asks for anything.
func (s *servers) idle(d time.Duration) (theirs, ours float64, messages float64, at usage, err error) {
	<-time.After(settleFor)
	before, err := s.usage()
	if err != nil {
		return 0, 0, 0, at, err
	}
	mine, began := processor(), time.Now()
	<-time.After(d)
	spent := processor() - mine
	at, err = s.usage()
	if err != nil {
		return 0, 0, 0, at, err
	}
	took := time.Since(began).Seconds()
	return (at.CPU - before.CPU).Seconds() / took, spent.Seconds() / took, float64(at.Messages-before.Messages) / took, at, nil
}

// settleFor is how long what was set up is left alone first.
const settleFor = 3 * time.Second

func (s *servers) stop() {
	if s.nc != nil {
		s.nc.Close()
	}
	s.child.stop()
}
