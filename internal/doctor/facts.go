package doctor

import (
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

// Facts is what was found of a running system. An Err says why what stands beside it was not seen.
type Facts struct {
	Namespace wire.Subjects
	Software  string    // the version of this program
	Now       time.Time // by this machine

	Server  Server
	Account Account
	Journal Journal
	Mapping Mapping
	Workers Workers

	Monitor    *Monitor // nil if it was not asked for, or did not answer
	MonitorErr error
}

// Server is what the connection says of the server at its other end.
type Server struct {
	ID           string
	Version      string
	Cluster      string // empty: it is alone
	PayloadMax   int64
	Loopback     bool // it was reached on this machine
	AuthRequired bool
	RoundTrip    time.Duration
}

// Account is what JetStream gives the account of the connection, in bytes. -1 is no limit.
type Account struct {
	Store, StoreMax int64
	Err             error
}

// Journal is the namespace: its streams as they are, the bucket first, and who owns its partitions.
type Journal struct {
	Namespace jetstream.Namespace
	Streams   []jetstream.StreamReport
	Err       error // there is no namespace

	Owners    []engine.Ownership
	OwnersErr error // of the first partition whose owner could not be read
}

// Mapping is where the server's subject mapping took a call.
type Mapping struct {
	Slot int // where it came out; -1: nowhere
	Want int
	Err  error
}

// Workers are the workers that answer questions.
type Workers struct {
	System *System         // nil: none answered
	Ahead  []time.Duration // their clocks, in the order of System.Workers
	Err    error
}

// Host is where a worker runs.
type Host struct {
	Version string    `json:"version"` // of the software
	Now     time.Time `json:"now"`     // by its clock
	Sync    string    `json:"sync"`    // always or a duration, of the server in the same process; empty if there is none
	Folder  Folder    `json:"folder"`  // its data folder
}

// Monitor is what a server's HTTP monitor tells. Sizes are in bytes.
type Monitor struct {
	ServerID  string `json:"server_id"`
	JetStream struct {
		Config struct {
			SyncInterval time.Duration `json:"sync_interval"`
			SyncAlways   bool          `json:"sync_always"`
			StoreMax     int64         `json:"max_storage"`
		} `json:"config"`
		Stats struct {
			Store int64 `json:"storage"`
		} `json:"stats"`
	} `json:"jetstream"`
}
