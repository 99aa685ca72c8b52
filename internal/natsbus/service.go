package natsbus

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// Service tells NATS tools what a worker serves and how much it did: `nats micro ls`, `info` and `stats` (ADR-32), one
// endpoint per method. It answers by itself, in the types of package micro, and is no micro.Service: that would subscribe
// to the endpoints' subjects and take calls, which only the owners of partitions may.
type Service struct {
	micro.ServiceIdentity
	started   time.Time
	endpoints []*endpoint
	byMethod  map[[2]string]*endpoint // by class and method
}

// endpoint is a method, and what turns of it came to.
type endpoint struct {
	micro.EndpointInfo
	requests, errors atomic.Int64
	took             atomic.Int64 // nanoseconds
	last             atomic.Pointer[engine.Code]
}

// NewService describes a worker by its id, the version of its software (SemVer) and what it serves.
func NewService(ns wire.Subjects, worker, version string, partitions int, classes []engine.ClassInfo) *Service {
	s := &Service{started: time.Now().UTC(), byMethod: map[[2]string]*endpoint{}, ServiceIdentity: micro.ServiceIdentity{
		Name: string(ns), ID: nuid.Next(), Version: version,
		Metadata: map[string]string{"worker": worker, "version": version, "partitions": fmt.Sprint(partitions)},
	}}
	for _, c := range classes {
		for _, name := range slices.Sorted(maps.Keys(c.Methods)) {
			m, kind := c.Methods[name], "call"
			if m.Read {
				kind = "read"
			}
			e := &endpoint{EndpointInfo: micro.EndpointInfo{
				Name: c.Name + "-" + name, Subject: ns.Call(c.Name, "*", name), QueueGroup: queueGroup,
				Metadata: map[string]string{"class": c.Name, "method": name, "kind": kind, metadataIn: string(m.In), metadataOut: string(m.Out)},
			}}
			s.endpoints = append(s.endpoints, e)
			s.byMethod[[2]string{c.Name, name}] = e
		}
	}
	return s
}

// The metadata that may be long: JSON Schemas.
const (
	metadataIn  = "argument"
	metadataOut = "result"
)

// Ran counts a turn; it is for [engine.Observer]. Time is that of the method, without what it waited.
func (s *Service) Ran(class, method string, code engine.Code, _, ran time.Duration) {
	e := s.byMethod[[2]string{class, method}]
	if e == nil {
		return // a whole HTTP request, or no method of the class
	}
	e.requests.Add(1)
	e.took.Add(int64(ran))
	if code != "" {
		failed := code // only here, so that a success costs no memory
		e.errors.Add(1)
		e.last.Store(&failed)
	}
}

// Serve answers PING, INFO and STATS: those to all services, to all of this name, and to this one.
func (s *Service) Serve(nc *nats.Conn, ns wire.Subjects, log *slog.Logger) (stop func(), err error) {
	a := &answers{nc, ns, log}
	var subs []*nats.Subscription
	stop = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // it is gone with a closed connection, the only thing that can be wrong
		}
	}
	for verb, answer := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.ServiceIdentity, Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info(a.answerBytesMax()) },
		micro.StatsVerb: func() any { return s.stats() },
	} {
		for _, to := range [][2]string{{}, {s.Name}, {s.Name, s.ID}} {
			subject, err := micro.ControlSubject(verb, to[0], to[1])
			if err != nil {
				stop()
				return nil, err
			}
			sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
				data, _ := json.Marshal(answer()) // strings and numbers
				a.publish(&nats.Msg{Subject: a.replyTo(m), Data: data}, "")
			})
			if err != nil {
				stop()
				return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
			}
			subs = append(subs, sub)
		}
	}
	return stop, nc.Flush()
}

// info leaves the schemas out if the server would not carry the answer with them.
func (s *Service) info(bytesMax int) micro.Info {
	info := micro.Info{ServiceIdentity: s.ServiceIdentity, Type: micro.InfoResponseType, Endpoints: []micro.EndpointInfo{},
		Description: "durable objects: a call goes to " + s.Name + ".call.<class>.<name>.<method>"}
	size := 0
	for _, e := range s.endpoints {
		info.Endpoints = append(info.Endpoints, e.EndpointInfo)
		data, _ := json.Marshal(e.EndpointInfo) // strings
		size += len(data)
	}
	if size < bytesMax {
		return info
	}
	for i := range info.Endpoints {
		short := maps.Clone(info.Endpoints[i].Metadata)
		delete(short, metadataIn)
		delete(short, metadataOut)
		info.Endpoints[i].Metadata = short
	}
	return info
}

func (s *Service) stats() micro.Stats {
	stats := micro.Stats{ServiceIdentity: s.ServiceIdentity, Type: micro.StatsResponseType, Started: s.started, Endpoints: []*micro.EndpointStats{}}
	for _, e := range s.endpoints {
		requests, took := e.requests.Load(), time.Duration(e.took.Load())
		of := &micro.EndpointStats{Name: e.Name, Subject: e.Subject, QueueGroup: e.QueueGroup, NumRequests: int(requests), NumErrors: int(e.errors.Load()),
			ProcessingTime: took, AverageProcessingTime: took / time.Duration(max(requests, 1))}
		if code := e.last.Load(); code != nil {
			of.LastError = fmt.Sprintf("%d:%s", code.Status(), *code)
		}
		stats.Endpoints = append(stats.Endpoints, of)
	}
	return stats
}
