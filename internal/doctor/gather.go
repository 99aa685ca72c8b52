package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

// Gather asks everything that a session reaches, and the server's HTTP monitor at a URL such as http://127.0.0.1:8222 if
// that is not empty. What does not answer until ctx is done is in the facts, as an error. It makes and changes nothing.
func Gather(ctx context.Context, s *jetstream.Session, ns wire.Subjects, software, monitor string) Facts {
	nc := s.Conn()
	f := Facts{Namespace: ns, Software: software, Now: time.Now(), Server: server(nc), Mapping: probe(nc, ns)}
	var wg sync.WaitGroup // a question that nobody answers costs the others no time
	wg.Go(func() { f.Account = account(ctx, nc) })
	wg.Go(func() { f.Journal = readJournal(ctx, s, ns) })
	wg.Go(func() { f.Workers = askWorkers(ctx, nc, ns) })
	if monitor != "" {
		wg.Go(func() { f.Monitor, f.MonitorErr = readMonitor(ctx, monitor) })
	}
	wg.Wait()
	return f
}

func server(nc *nats.Conn) Server {
	s := Server{ID: nc.ConnectedServerId(), Version: nc.ConnectedServerVersion(), Cluster: nc.ConnectedClusterName(),
		PayloadMax: nc.MaxPayload(), AuthRequired: nc.AuthRequired()}
	if host, _, err := net.SplitHostPort(nc.ConnectedAddr()); err == nil {
		ip := net.ParseIP(host)
		s.Loopback = ip != nil && ip.IsLoopback()
	}
	for range 5 { // the best of some: the first may have waited for the program itself
		if took, err := nc.RTT(); err == nil && (s.RoundTrip == 0 || took < s.RoundTrip) {
			s.RoundTrip = took
		}
	}
	return s
}

// account finds the limit of JetStream that leaves the least, among those of all tiers.
func account(ctx context.Context, nc *nats.Conn) (a Account) {
	a.StoreMax = -1
	js, err := natsjs.New(nc)
	if err != nil {
		return Account{Err: err}
	}
	info, err := js.AccountInfo(ctx)
	if err != nil {
		return Account{Err: err}
	}
	tiers := []natsjs.Tier{info.Tier}
	for _, t := range info.Tiers {
		tiers = append(tiers, t)
	}
	a.Store = int64(info.Store)
	for _, t := range tiers {
		left, most := t.Limits.MaxStore-int64(t.Store), a.StoreMax-a.Store
		if t.Limits.MaxStore > 0 && (a.StoreMax < 0 || left < most) {
			a.Store, a.StoreMax = int64(t.Store), t.Limits.MaxStore
		}
	}
	return a
}

func readJournal(ctx context.Context, s *jetstream.Session, ns wire.Subjects) (j Journal) {
	if j.Namespace, j.Streams, j.Err = s.Survey(ctx); j.Err != nil {
		return j
	}
	for p := range j.Namespace.Partitions {
		if j.Streams[1+p].Info == nil {
			continue // said already
		}
		o, err := engine.ReadOwnership(ctx, s, ns, p)
		if err != nil {
			j.OwnersErr = fmt.Errorf("partition %d: %w", p, err)
			return j
		}
		j.Owners = append(j.Owners, o)
	}
	return j
}

// probe sends a call that no worker serves, since no class has this name, and listens where the mapping takes it. Whoever
// listens to the slot gets it too, and drops it.
func probe(nc *nats.Conn, ns wire.Subjects) Mapping {
	const class, token, method = "v1", "doctor", "probe"
	m := Mapping{Slot: -1, Want: wire.Slot(class, token)}
	call := "." + strings.TrimPrefix(ns.Call(class, token, method), string(ns)+".")
	sub, err := nc.SubscribeSync(string(ns) + ".part.*" + call)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }() // the connection ends soon
		err = nc.Flush()
	}
	if err == nil {
		err = nc.Publish(ns.Call(class, token, method), nil)
	}
	if err == nil {
		err = nc.Flush() // the server hands a message over before it answers what was sent behind it
	}
	if err == nil {
		err = permission(nc)
	}
	if err != nil {
		return Mapping{Err: err}
	}
	if got, err := sub.NextMsg(probeWait); err == nil {
		m.Slot, _, _, _, _ = ns.SplitCall(got.Subject)
	}
	return m
}

// probeWait is for the client to hand over what has arrived.
const probeWait = 200 * time.Millisecond

// permission is the server's last refusal, if it was for a lack of permission.
func permission(nc *nats.Conn) error {
	if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

func askWorkers(ctx context.Context, nc *nats.Conn, ns wire.Subjects) Workers {
	asked := time.Now()
	s, err := ReadSystem(ctx, natsbus.NewClient(nc, ns))
	answered := time.Now()
	if err != nil {
		return Workers{Err: err}
	}
	w := Workers{System: &s, Ahead: make([]time.Duration, len(s.Workers))}
	for i := range s.Workers {
		if h := s.Workers[i].Host; h != nil {
			w.Ahead[i] = jetstream.Ahead(h.Now, asked, answered)
		}
	}
	return w
}

func readMonitor(ctx context.Context, at string) (*Monitor, error) {
	path, err := url.JoinPath(at, "varz")
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	m := new(Monitor)
	if err := json.NewDecoder(resp.Body).Decode(m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
