package jetstream

import (
	"errors"
	"slices"
)

// answered says which server told of a stream. When its Raft group has had no leader for ten seconds each server tells what its own copy
// has, which may lack what was acknowledged.
type answered struct {
	Cluster *struct {
		Leader   string    `json:"leader"`
		Replicas []replica `json:"replicas"` // but the one that answers
	} `json:"cluster"`
}

type replica struct {
	Name string `json:"name"`
}

var errNoLeader = errors.New("the stream has no leader just now, and another server's copy may be behind")

// byLeader is an error unless the leader answered.
func (a answered) byLeader() error {
	c := a.Cluster
	if c != nil && (c.Leader == "" || slices.ContainsFunc(c.Replicas, func(r replica) bool { return r.Name == c.Leader })) {
		return errNoLeader
	}
	return nil
}
