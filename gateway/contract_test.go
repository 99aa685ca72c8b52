package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter/counterapi"
	"github.com/perdure/perdure/gateway"
)

// What follows is docs/go-client.md as a program that knows a contract, not a class.

func connect() error {
	client, err := gateway.Connect("nats://127.0.0.1:4222", gateway.ClientOptions{Name: "shop"})
	if err != nil {
		return err
	}
	defer client.Close()
	return serve(client)
}

func counting(ctx context.Context, client *gateway.Client) (int64, error) {
	env, cart := client.With(ctx), counterapi.Counters.Get("cart-99")
	n, err := engine.Call(env, cart, counterapi.Counter.Increment, counterapi.By{By: 2})
	if err != nil {
		return n, err
	}
	n, err = engine.Read(env, cart, counterapi.Counter.Value, nil)
	if err != nil {
		return n, err
	}
	err = engine.Post(env, cart, counterapi.Counter.Increment, counterapi.By{By: 1})
	return n, err
}

func fresh(ctx context.Context, client *gateway.Client) (int64, error) {
	env, cart := client.With(ctx), counterapi.Counters.Get("cart-77")
	n, err := engine.Read(env, cart, counterapi.Counter.Value, nil)
	if err != nil {
		return n, err
	}
	var v engine.Version
	n, err = engine.Call(env, cart, counterapi.Counter.Increment, counterapi.By{By: 2}, engine.TellVersion{To: &v})
	if err != nil {
		return n, err
	}
	n, err = engine.Read(env, cart, counterapi.Counter.Value, nil, engine.Eventual{AtLeast: v})
	return n, err
}

func bytes(ctx context.Context, client *gateway.Client) error {
	reply, err := client.Do(ctx, engine.Request{Class: "counter", Name: "cart-99", Method: "increment", Body: []byte(`{"by":2}`)})
	fmt.Printf("%s at version %d\n", reply.Body, reply.Version)
	return err
}

func soon(ctx context.Context, client *gateway.Client) (int64, error) {
	env, cart := client.With(ctx), counterapi.Counters.Get("cart-99")
	n, err := engine.Call(env, cart, counterapi.Counter.Increment, counterapi.By{}, engine.Limit(2*time.Second))
	return n, err
}

func outcome(env engine.Env, cart engine.Ref[counterapi.Counter]) string {
	_, err := engine.Call(env, cart, counterapi.Counter.Increment, counterapi.By{By: 2}, engine.RequestID("order-17"))
	e, _ := errors.AsType[*engine.Error](err)
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, engine.Refused):
		return "the object says no: " + e.Detail
	case e.Overloaded():
		return "not done; ask again in " + e.RetryAfter.String()
	case errors.Is(err, engine.UnknownOutcome):
		return "done or not done: repeat it under the id " + e.RequestID
	default:
		return "not done: " + e.Error()
	}
}

func serve(client *gateway.Client) error {
	front, err := gateway.New(gateway.Config{Transport: client, Ready: client.Ready})
	if err != nil {
		return err
	}
	return http.ListenAndServe("127.0.0.1:8080", front)
}

func TestAContractIsEnough(t *testing.T) {
	t.Parallel()
	client, err := gateway.Connect(gateway.CounterServer(t), gateway.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if n, err := counting(t.Context(), client); n != 2 || err != nil {
		t.Errorf("counting: %d, %v", n, err)
	}
	if n, err := fresh(t.Context(), client); n != 2 || err != nil {
		t.Errorf("fresh: %d, %v", n, err)
	}
	if err := bytes(t.Context(), client); err != nil {
		t.Error(err)
	}
	env, cart := client.With(t.Context()), counterapi.Counters.Get("cart-99")
	for range 2 { // under an id: applied once
		if got := outcome(env, cart); got != "done" {
			t.Error(got)
		}
	}
	if _, err := soon(t.Context(), client); err != nil {
		t.Error(err)
	}
	const want = 2 + 1 + 2 + 2 + 1 // the message comes when it comes
	var n int64
	for range 1000 {
		if n, err = engine.Read(env, cart, counterapi.Counter.Value, nil); n == want || err != nil {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if n != want || err != nil {
		t.Errorf("the counter is %d, want %d: %v", n, want, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got := outcome(client.With(gone), cart); !strings.HasPrefix(got, "not done: counter/cart-99: unavailable") {
		t.Error(got)
	}
	_ = connect // it compiles; whether it runs depends on who has the ports
}

// TestThisFileKnowsNoClass, and of the module only what a service that calls has to import.
func TestThisFileKnowsNoClass(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "contract_test.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	const module = `"github.com/perdure/perdure/`
	for _, i := range f.Imports {
		rest, ours := strings.CutPrefix(i.Path.Value, module)
		if ours && rest != `engine"` && rest != `gateway"` && rest != `examples/counter/counterapi"` {
			t.Errorf("it imports %s", i.Path.Value)
		}
	}
}

// TestTheSnippetsOfTheDocsCompile: each is in this file, but for indentation and for what is made of the errors in between.
func TestTheSnippetsOfTheDocsCompile(t *testing.T) {
	t.Parallel()
	lines := func(text string) (out []string) {
		for line := range strings.Lines(text) {
			out = append(out, strings.TrimSpace(line))
		}
		return out
	}
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const check = "if err != nil {\nreturn n, err\n}\n"
	program := strings.ReplaceAll(strings.Join(lines(read("contract_test.go")), "\n"), check, "")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read("../docs/go-client.md"), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d snippets", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(program, strings.Join(lines(b[1]), "\n")) {
			t.Errorf("this file does not have\n%s", b[1])
		}
	}
}
