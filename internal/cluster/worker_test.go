package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/wire"
)

// counted is one counter, incremented through a gateway: each increment has an id of its own and is repeated until it is
// answered, so the answers must be 1, 2, 3, …
type counted struct {
	t       *testing.T
	gateway *Process
	answers int
}

func (c *counted) increment(times int) {
	c.t.Helper()
	for range times {
		want := strconv.Itoa(c.answers + 1)
		eventually(c.t, func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.gateway.URL+"/v1/objects/counter/a/call/increment", nil)
			if err != nil {
				return err
			}
			r.Header.Set("Idempotency-Key", "n"+want)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", resp.Status, body)
			}
			if got := strings.TrimSpace(string(body)); got != want {
				c.t.Fatalf("increment %s was answered %s", want, got)
			}
			return nil
		})
		c.answers++
	}
}

// perdure runs a command of the program, which must succeed, and returns what it prints.
func perdure(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	cmd := exec.Command(c.kept.Program, args...)
	cmd.Env = append(cleanEnv(), c.Env()...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("perdure %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestNothingIsLostWithTheServerThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Workers: 1, Gateways: 1})
	check(t, c.Start(withDeadline(t)))
	n := &counted{t: t, gateway: c.Gateways[0]}
	n.increment(20)
	stream := wire.DefaultNamespace.Stream(wire.Partition(wire.Slot("counter", "a"), 16))
	led := leader(t, c, connect(t, c), stream)
	check(t, led.Kill())
	n.increment(20)
	check(t, led.Start())
	check(t, led.Ready(withDeadline(t)))
	check(t, c.Workers[0].Kill())
	check(t, c.Workers[0].Start())
	n.increment(20)
	check(t, c.Ready(withDeadline(t)))
	if out := perdure(t, c, "verify", "--json"); !strings.Contains(out, `"severe":0`) {
		t.Error(out)
	}
	if out := strings.TrimSpace(perdure(t, c, "call", "counter/a", "value")); out != strconv.Itoa(n.answers) {
		t.Errorf("the counter is %s after %d answers", out, n.answers)
	}
	check(t, c.Stop(withDeadline(t)))
}
