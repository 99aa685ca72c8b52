package natsbus

import (
	"log/slog"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// payloadMax is small, so that it is soon exceeded.
const payloadMax = 128 << 10

// The one server of all tests; each has a namespace of its own.
var natsServer *server.Server

func TestMain(m *testing.M) {
	var err error
	natsServer, err = server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, MaxPayload: payloadMax})
	if err != nil {
		panic(err)
	}
	natsServer.Start()
	if !natsServer.ReadyForConnections(time.Minute) {
		panic("the server did not start")
	}
	code := m.Run()
	natsServer.Shutdown()
	os.Exit(code)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc := must[*nats.Conn](t)(nats.Connect("", nats.InProcessServer(natsServer)))
	t.Cleanup(nc.Close)
	return nc
}

// namespace makes one, named for the test, with its mapping.
func namespace(t testing.TB) wire.Subjects {
	t.Helper()
	ns := wire.Subjects(regexp.MustCompile(`\W`).ReplaceAllString(t.Name(), "_"))
	from, to := ns.Mapping()
	check(t, natsServer.GlobalAccount().AddMapping(from, to))
	return ns
}

type serveFunc = func(engine.Request, func(engine.Reply, error))

// listen serves all slots of a namespace on a connection of its own.
func listen(t testing.TB, ns wire.Subjects, serve serveFunc) {
	t.Helper()
	stop := must[func()](t)(Listen(connect(t), ns, 0, 1, slog.New(slog.DiscardHandler), serve))
	t.Cleanup(stop)
}

// answering serves every request with the same answer.
func answering(reply engine.Reply, err error) serveFunc {
	return func(_ engine.Request, answer func(engine.Reply, error)) { answer(reply, err) }
}

func unserved(t testing.TB) serveFunc {
	return func(r engine.Request, answer func(engine.Reply, error)) {
		t.Errorf("served %+v", r)
		answer(engine.Reply{}, nil)
	}
}
