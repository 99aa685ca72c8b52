package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// served runs serve with a handler that says that it began and then does end.
func served(t *testing.T, drain time.Duration, end func(*http.Request)) (stop func(), began chan struct{}, reply chan string, ended chan error) {
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	began, reply, ended = make(chan struct{}), make(chan string, 1), make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		end(r)
		fmt.Fprint(w, "finished")
	})
	go func() { ended <- serve(ctx, l, h, drain) }()
	go func() {
		got, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			reply <- err.Error()
			return
		}
		defer got.Body.Close()
		b, _ := io.ReadAll(got.Body)
		reply <- string(b)
	}()
	return cancel, began, reply, ended
}

func TestServeFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	may := make(chan struct{})
	stop, began, reply, ended := served(t, time.Minute, func(*http.Request) { <-may })
	<-began
	stop()
	select {
	case err := <-ended:
		t.Errorf("ended before the request had: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(may)
	if got := <-reply; got != "finished" {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	stop, began, reply, ended := served(t, 20*time.Millisecond, func(r *http.Request) { <-r.Context().Done() })
	<-began
	stop()
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut off requests after 20ms") {
		t.Errorf("got %v", err)
	}
	if got := <-reply; got == "finished" {
		t.Error("the request was not cut off")
	}
}

func TestServeTellsOfAListenerThatFails(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close()
	if err := Serve(t.Context(), l, http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestServeRefusesLargeHeaders(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, http.NotFoundHandler()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("h", 128<<10))
	}()
	got, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", got.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
