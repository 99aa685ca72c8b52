// Package cluster runs NATS servers, workers and gateways as processes of this machine: what docker-compose.yml describes,
// from the same server configuration (nats.conf), without containers. The recovery drill and tests kill, pause and restart
// them one by one.
//
// All of them are one program, the perdure binary: its hidden command nats-server is the server of the module that go.mod
// names. Each has a folder below that of the cluster, with what it keeps, its log, and its process id in a file. The
// process holds a lock on that file for as long as it lives, and the kernel ends it with the process. So whoever looks at
// the folder, also another process than the one that started it, knows what runs and never signals a stranger that got the
// number later.
package cluster
