package cmd

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// banner says where everything is and what to try next. Its lines can be pasted: they name the ports and the namespace
// where these are not the default, and a class that is served.
func (d *dev) banner(w io.Writer) {
	http, natsURL := reachable(d.http.Addr().String()), "nats://"+reachable(strings.TrimPrefix(d.server.URL(), "nats://"))
	sync := "every record before it is acknowledged"
	if d.sync != "always" {
		sync = "every " + d.sync
	}
	data, err := filepath.Abs(d.data)
	if err != nil {
		data = d.data
	}
	fmt.Fprintf(w, "perdure %s, %s\n", Version, runtime.Version())
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "  HTTP\thttp://%s/<class>/<name>\n", http)
	fmt.Fprintf(t, "  NATS\t%s, subjects %s.>\n", natsURL, d.ns)
	fmt.Fprintf(t, "  Data\t%s, synced %s\n", data, sync)
	fmt.Fprintf(t, "  Classes\t%s\n", strings.Join(classNames(d.classes), " "))
	_ = t.Flush() // a terminal that is gone hears nothing
	if lines := d.tryNext(http, natsURL); len(lines) > 0 {
		fmt.Fprintf(w, "Try\n  %s\n", strings.Join(lines, "\n  "))
	}
}

// tryNext are commands for a class that is served: the counter, or else the first that there is.
func (d *dev) tryNext(http, natsURL string) (lines []string) {
	b := example(d.classes)
	if b == nil {
		return nil
	}
	server, namespace := "", ""
	if natsURL != nats.DefaultURL {
		server = " -s " + natsURL
	}
	if d.ns != wire.DefaultNamespace {
		namespace = " --namespace " + string(d.ns)
	}
	const name = "checkout-cart-99"
	if b.Name != exampleClass { // what its methods take only their types could tell
		if b.HTTP {
			lines = append(lines, fmt.Sprintf("curl %s/%s/%s", http, b.Name, name))
		}
		return append(lines, fmt.Sprintf("perdure classes%s%s", server, namespace))
	}
	return append(lines,
		fmt.Sprintf("curl -X POST %s/%s/%s", http, b.Name, name),
		fmt.Sprintf("nats req%s %s '{\"by\":2}'", server, d.ns.Call(b.Name, name, "increment")),
		fmt.Sprintf("perdure journal%s%s %s/%s", server, namespace, b.Name, name))
}

const exampleClass = "counter"

// example is the class that the banner shows.
func example(classes []engine.AnyClass) (first *engine.Behavior) {
	for _, c := range classes {
		b, err := c.Bind()
		if err != nil {
			continue // the worker says so
		}
		if b.Name == exampleClass {
			return b
		}
		first = cmp.Or(first, b)
	}
	return first
}

// reachable is an address to connect to: a listener on all addresses is reached on this machine's own.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func classNames(classes []engine.AnyClass) (names []string) {
	for _, c := range classes {
		if b, err := c.Bind(); err == nil {
			names = append(names, b.Name)
		}
	}
	return names
}
