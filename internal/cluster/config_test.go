package cluster

import (
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
)

// serverOptions are what the server reads out of the configuration. It sets variables of the environment.
func serverOptions(t *testing.T, env map[string]string) *server.Options {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	return must[*server.Options](t)(server.ProcessConfigFile(configFile))
}

var oneServer = map[string]string{"NATS_NAME": "n1", "NATS_HOST": host, "NATS_PORT": "-1", "NATS_MONITOR_PORT": "-1",
	"NATS_CLUSTER_PORT": "0", "NATS_ROUTES": "[]", "NATS_STORE": "/data"}

func TestTheConfigurationIsThatOfOurOtherServers(t *testing.T) {
	o := serverOptions(t, oneServer)
	if !o.JetStream || !o.SyncAlways || o.MaxPayload != embed.PayloadBytesMax || o.JetStreamMaxStore < 1<<60 {
		t.Errorf("JetStream %v, sync always %v, payload %d, store %d", o.JetStream, o.SyncAlways, o.MaxPayload, o.JetStreamMaxStore)
	}
	o = serverOptions(t, readCompose(t).kind("nats")["nats2"].Environment)
	if len(o.Routes) != 3 || o.Cluster.Port != 6222 || o.HTTPPort != 8222 || o.Port != 4222 || !o.Cluster.NoAdvertise {
		t.Errorf("%v, ports %d, %d, %d", o.Routes, o.Cluster.Port, o.HTTPPort, o.Port)
	}
}

// TestACallGoesToItsSlot starts the server in this process, as the configuration says.
func TestACallGoesToItsSlot(t *testing.T) {
	env := maps.Clone(oneServer)
	env["NATS_STORE"] = strconv.Quote(t.TempDir())
	o := serverOptions(t, env)
	o.NoSigs, o.NoLog = true, true
	s := must[*server.Server](t)(server.NewServer(o))
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	nc := must[*nats.Conn](t)(nats.Connect("", nats.InProcessServer(s)))
	t.Cleanup(nc.Close)
	sub := must[*nats.Subscription](t)(nc.SubscribeSync("objects.>"))
	for _, name := range []string{"x", "a.b", "äöü", "checkout-cart-99"} {
		token := wire.Escape(name)
		check(t, nc.Publish(wire.DefaultNamespace.Call("counter", token, "increment"), nil))
		m := must[*nats.Msg](t)(sub.NextMsg(waitMax))
		want := fmt.Sprintf("objects.part.%d.call.counter.%s.increment", wire.Slot("counter", token), token)
		if m.Subject != want {
			t.Errorf("%s; want %s", m.Subject, want)
		}
	}
}
