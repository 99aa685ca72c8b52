package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

func partitionOf(class, name string) int {
	return wire.Partition(wire.Slot(class, wire.Escape(name)), worldPartitions)
}

func TestConcurrentCallersEachCountOnce(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	env := NewClient(worker).With(t.Context())
	const callers, each = 32, 50
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				if _, err := Call(env, registers.Get("hot"), (*register).Add, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := must(Read(env, registers.Get("hot"), (*register).Value, nil))(t); n != callers*each {
		t.Errorf("%d; want %d", n, callers*each)
	}
	worker.Kill()
	env = NewClient(w.worker("w")).With(t.Context())
	if n := must(Read(env, registers.Get("hot"), (*register).Value, nil))(t); n != callers*each {
		t.Errorf("after a kill %d; want %d", n, callers*each)
	}
}

// TestFoldedStateIsCapturedWhileTurnsGoOn: the state that goes into the store is that of one record, however many turns
// have run since.
func TestFoldedStateIsCapturedWhileTurnsGoOn(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	sum := int64(0)
	for range 3 {
		worker := w.worker("w", func(c *Config) { c.Store = store })
		client := NewClient(worker)
		var wg sync.WaitGroup
		const callers, each = 64, 100 // several captures of 1,024 commits each
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := Call(client.With(t.Context()), ledgers.Get("hot"), (*ledger).Add, 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		sum += callers * each
		o := residentObject(worker, "ledger", "hot")
		eventually(t, "captured", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.acked.version == journal.Version(sum) })
		worker.Kill() // what is in the store was captured under load
		raw, err := store.Get("ledger.hot", snapshot.State, "")
		if err != nil || raw == nil {
			t.Fatal("nothing was captured", err)
		}
		worker = w.worker("w", func(c *Config) { c.Store = store })
		if n := must(Read(NewClient(worker).With(t.Context()), ledgers.Get("hot"), (*ledger).Value, nil))(t); n != sum {
			t.Errorf("%d; want %d", n, sum)
		}
		worker.Kill()
	}
}

func TestARestartFindsStateInTheStoreAndInTheJournal(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	keep := func(c *Config) { c.Store = store }
	for round := range int64(4) {
		worker := w.worker("w", keep)
		env := NewClient(worker).With(t.Context())
		for i := range 5 {
			name := fmt.Sprint("o", i)
			if n := must(Call(env, registers.Get(name), (*register).Add, 1))(t); n != round+1 {
				t.Errorf("round %d: %s is %d", round, name, n)
			}
			if n := must(Call(env, ledgers.Get(name), (*ledger).Add, 2))(t); n != 2*(round+1) {
				t.Errorf("round %d: ledger %s is %d", round, name, n)
			}
		}
		if round%2 == 0 {
			worker.Stop()
		} else {
			worker.Kill()
		}
		if round == 2 {
			store = snapshot.NewMemory() // wiped
		}
	}
}

func TestEvictionKeepsEverything(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	idle := registers
	idle.Limits.Idle = time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	env := NewClient(worker).With(t.Context())
	for round := range int64(3) {
		if n := must(Call(env, registers.Get("a"), (*register).Add, 1))(t); n != round+1 {
			t.Fatalf("%d after %d evictions", n, round)
		}
		eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
		if m := worker.Status().Memory; m != 0 {
			t.Fatalf("nothing is resident and counts for %d bytes", m)
		}
	}
}

func TestAnObjectLargerThanTheMemoryBudgetWorks(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.MemoryBytes = 1 << 20 })
	env := NewClient(worker).With(t.Context())
	big := registers.Get("big")
	for i := range 40 {
		must(Call(env, big, (*register).Fill, fill{i * 500, 500, 200}))(t)
		eventually(t, "under the budget", func() bool { return worker.Status().Memory < 2<<20 })
	}
	if n := must(Read(env, big, (*register).CountItems, nil))(t); n != 20000 {
		t.Errorf("%d items", n)
	}
	worker.Kill()
	env = NewClient(w.worker("w")).With(t.Context()) // its store is empty
	if n := must(Read(env, big, (*register).CountItems, nil))(t); n != 20000 {
		t.Errorf("%d items after replay", n)
	}
}

func TestAnObjectWithoutWorkHasNoGoroutine(t *testing.T) { // not parallel: it counts goroutines
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	env := NewClient(worker).With(t.Context())
	before := runtime.NumGoroutine()
	for i := range 200 {
		must(Call(env, registers.Get(fmt.Sprint(i)), (*register).Add, 1))(t)
	}
	eventually(t, "asleep", func() bool { return runtime.NumGoroutine() <= before+5 })
	if n := worker.Status().Resident; n != 200 {
		t.Errorf("%d are in memory", n)
	}
}

func TestFullMailboxAnswersOverloadedAndServesTheRest(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	small := registers
	small.Limits.Queue = 3
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{small} })
	w.ready(worker)
	began, release := block(t, "full")
	results := make(chan error, 5)
	call := func() {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "full", Method: "block", Body: []byte("1")})
		results <- err
	}
	go call()
	<-began
	o := residentObject(worker, "register", "full")
	for i := range 3 {
		go call()
		eventually(t, "queued", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.queue) == i+1 })
	}
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "full", Method: "block", Body: []byte("1")})
	if e := wantCode(t, err, Overloaded, "3 requests wait"); e.RetryAfter == 0 || !e.Overloaded() {
		t.Errorf("%+v", e)
	}
	other := must(worker.Do(t.Context(), Request{Class: "register", Name: "other", Method: "add", Body: []byte("1")}))(t)
	if string(other.Body) != "1" {
		t.Errorf("another object answers %s", other.Body)
	}
	go func() {
		for range 3 {
			<-began
		}
	}()
	close(release)
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := worker.queued.Load(); n != 0 {
		t.Errorf("%d bytes still count as queued", n)
	}
}

func TestTheHeadersOfARequestThatWaitsCount(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	small := registers
	small.Limits.QueueBytes = 4096
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{small} })
	w.ready(worker)
	get := func(header string) error {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", HTTP: &HTTPRequest{Method: "GET", URL: "/", Header: http.Header{"X-Long": {header}}}})
		return err
	}
	if err := get("short"); err != nil {
		t.Error(err)
	}
	wantCode(t, get(strings.Repeat("x", 4096)), Overloaded, "at most 4096")
	if n := worker.queued.Load(); n != 0 {
		t.Errorf("%d bytes still count as queued", n)
	}
}

// block makes the object's Block method tell when it begins and wait to be released.
func block(t *testing.T, name string) (began, release chan struct{}) {
	began, release = make(chan struct{}), make(chan struct{})
	gates.Store(name, [2]chan struct{}{began, release})
	t.Cleanup(func() { gates.Delete(name) })
	return began, release
}

// residentObject is an object if it is in memory.
func residentObject(w *Worker, class, name string) *object {
	ep := w.epochs[partitionOf(class, name)].Load()
	if ep == nil {
		return nil
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return ep.objects[snapshot.ID(class+"."+wire.Escape(name))]
}

func TestAStuckMethodIsGivenUpAndTheObjectGoesOn(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	short := registers
	short.Limits.Turn = 20 * time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{short} })
	w.ready(worker)
	began, release := block(t, "stuck")
	result := make(chan error, 1)
	go func() {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "stuck", Method: "block", Body: []byte("100")})
		result <- err
	}()
	<-began
	wantCode(t, <-result, Timeout, "nothing changed")
	r := must(worker.Do(t.Context(), Request{Class: "register", Name: "stuck", Method: "add", Body: []byte("1")}))(t)
	close(release) // the method goes on, panics at its dead Ctx and reaches nothing
	if string(r.Body) != "1" {
		t.Errorf("answers %s", r.Body)
	}
	r = must(worker.Do(t.Context(), Request{Class: "register", Name: "stuck", Method: "add", Body: []byte("1")}))(t)
	if string(r.Body) != "2" {
		t.Errorf("answers %s", r.Body)
	}
}

func TestARequestBeyondItsDeadlineIsNotRun(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), Deadline: time.Now().Add(-time.Second)})
	wantCode(t, err, Timeout, "not begun by its deadline")
	r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
	if string(r.Body) != "0" || r.Version != 0 {
		t.Errorf("%s at %d", r.Body, r.Version)
	}
}

func TestBadRequestsAreRefusedClearly(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	big := strings.Repeat("x", ValueBytesMax)
	for name, c := range map[string]struct {
		r    Request
		code Code
		says string
	}{
		"no class":       {Request{Class: "counter", Name: "a", Method: "add"}, NotFound, `no class "counter"; there are: ledger, register`},
		"no method":      {Request{Class: "register", Name: "a", Method: "sub"}, NotFound, `has no method "sub"; it has: add, block`},
		"no name":        {Request{Class: "register", Method: "add"}, Invalid, "name is empty"},
		"long name":      {Request{Class: "register", Name: strings.Repeat("n", 513), Method: "add"}, Invalid, "513 bytes; want at most 512"},
		"not UTF-8":      {Request{Class: "register", Name: "\xff", Method: "add"}, Invalid, "is not UTF-8"},
		"wrong JSON":     {Request{Class: "register", Name: "a", Method: "add", Body: []byte("{")}, Invalid, "argument of add: unexpected"},
		"wrong type":     {Request{Class: "register", Name: "a", Method: "add", Body: []byte(`"one"`)}, Invalid, `want a whole number, have "one"`},
		"two values":     {Request{Class: "register", Name: "a", Method: "add", Body: []byte(`1 2`)}, Invalid, "more behind the JSON value"},
		"unknown field":  {Request{Class: "register", Name: "a", Method: "set", Body: []byte(`{"Keyy":"a"}`)}, Invalid, `Keyy: unknown field`},
		"large body":     {Request{Class: "register", Name: "a", Method: "write", Body: make([]byte, BodyBytesMax+1)}, TooLarge, "1048577 bytes; at most 1048576"},
		"large value":    {Request{Class: "register", Name: "a", Method: "write", Body: []byte(`"` + big[:BodyBytesMax-10] + `"`)}, "", ""},
		"large commit":   {Request{Class: "register", Name: "a", Method: "fill", Body: []byte(`{"N":12,"Bytes":1000000}`)}, TooLarge, "make a record of"},
		"larger value":   {Request{Class: "register", Name: "a", Method: "fill", Body: []byte(`{"N":1,"Bytes":1048576}`)}, TooLarge, "has 1048578 bytes; at most 1048576"},
		"long key":       {Request{Class: "register", Name: "a", Method: "set", Body: []byte(`{"Key":"` + big[:3000] + `"}`)}, TooLarge, "at most 2048"},
		"long id":        {Request{Class: "register", Name: "a", Method: "add", ID: big[:257]}, Invalid, "257 bytes; at most 256"},
		"circle":         {Request{Class: "register", Name: "a", Method: "add", Chain: []string{"register/a", "ledger/x"}}, Conflict, "register/a -> ledger/x -> register/a"},
		"read that adds": {Request{Class: "register", Name: "a", Method: "add", Read: true}, Invalid, "is no read"},
		"no HTTP":        {Request{Class: "ledger", Name: "a", HTTP: &HTTPRequest{Method: "GET", URL: "/"}}, NotFound, "has no OnHTTP"},
	} {
		_, err := worker.Do(t.Context(), c.r)
		if c.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != c.code || !strings.Contains(e.Error(), c.says) {
			t.Errorf("%s: %.300v\nwant %s: %s", name, err, c.code, c.says)
		}
	}
	r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
	if r.Version != 1 { // the large value that fits
		t.Errorf("version %d", r.Version)
	}
}

func TestAReadThatSawAnUnacknowledgedChangeWaitsForIt(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	held := make(chan func(), 10)
	var hold sync.Mutex
	holding := false
	worker := w.worker("w", func(c *Config) {
		c.Durable = func(_ string, _ journal.Seq, open func()) { // "acknowledged" and "durable" are not the same
			hold.Lock()
			defer hold.Unlock()
			if holding {
				held <- open
				return
			}
			open()
		}
	})
	w.ready(worker)
	must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
	hold.Lock()
	holding = true
	hold.Unlock()
	type result struct {
		r   Reply
		err error
	}
	ask := func(method, body string) chan result {
		c := make(chan result, 1)
		worker.submit(t.Context(), Request{Class: "register", Name: "a", Method: method, Body: []byte(body)}, func(r Reply, err error) { c <- result{r, err} })
		return c
	}
	write, read, peek := ask("add", "1"), ask("value", ""), ask("peek", "")
	open := <-held
	o := residentObject(worker, "register", "a")
	eventually(t, "all at the gate", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.waiters) == 3 })
	for _, c := range []chan result{write, read, peek} {
		select {
		case r := <-c:
			t.Fatalf("answered %s before the change is durable", r.r.Body)
		default:
		}
	}
	open()
	for _, c := range []chan result{write, read, peek} {
		if r := <-c; r.err != nil || string(r.r.Body) != "2" {
			t.Errorf("%s, %v", r.r.Body, r.err)
		}
	}
}

// caller calls another object after it changed itself.
type caller struct{}

var callers = Class[caller]{Name: "caller"}

func (*caller) Forward(ctx *Ctx, to string) (int64, error) {
	total.Put(ctx, total.Get(ctx)+1)
	a, err := Call(ctx, registers.Get(to), (*register).Add, 1)
	if err != nil {
		return 0, err
	}
	b, err := Call(ctx, registers.Get(to), (*register).Add, 10)
	return a + b, err
}

func (*caller) Myself(ctx *Ctx, _ None) (int64, error) {
	return Call(ctx, callers.Get(ctx.Name()), (*caller).Forward, "x")
}

func (*caller) Fails(ctx *Ctx, to string) (int64, error) {
	if _, err := Call(ctx, registers.Get(to), (*register).Add, 1); err != nil {
		return 0, err
	}
	return 0, Errorf(Refused, "after the call")
}

func (*caller) Sum(v View, to string) (int64, error) {
	return Read(v, registers.Get(to), (*register).Value, nil)
}

func TestCallsBetweenObjectsApplyOnceWhenRepeated(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = append(c.Classes, callers) })
	env := NewClient(worker).With(t.Context())
	for range 2 { // the repeat gets recorded replies all the way
		if n := must(Call(env, callers.Get("c"), (*caller).Forward, "r", RequestID("once")))(t); n != 12 {
			t.Errorf("%d", n)
		}
	}
	for range 2 { // a turn that fails changed nothing of its own and runs again: the callee's effect stands, once
		_, err := Call(env, callers.Get("c"), (*caller).Fails, "r", RequestID("again"))
		wantCode(t, err, Refused)
	}
	if n := must(Read(env, callers.Get("c"), (*caller).Sum, "r"))(t); n != 12 {
		t.Errorf("%d", n)
	}
	_, err := Call(env, callers.Get("c"), (*caller).Myself, nil)
	wantCode(t, err, Conflict, "caller/c -> caller/c")
	entries, _, err := worker.Journal(t.Context(), "register", "r", 0, 0)
	if err != nil || len(entries) != 3 || !strings.HasPrefix(entries[0].ID, "once/1@") || !strings.HasPrefix(entries[1].ID, "once/2@") || !strings.HasPrefix(entries[2].ID, "again/1@") || entries[0].Caller.Claimed != "caller/c" {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestHTTPRepliesAreRecordedToTheByte(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	post := Request{Class: "register", Name: "a", HTTP: &HTTPRequest{Method: "POST", URL: "/register/a", Header: http.Header{}}, ID: "p1"}
	first := must(NewClient(worker).Do(t.Context(), post))(t)
	if string(first.Body) != "{\"count\":1}\n" || first.Status != 200 || first.Header.Get("Content-Type") != "application/json" || first.Replayed {
		t.Errorf("%+v", first)
	}
	worker.Kill()
	again := must(NewClient(w.worker("w")).Do(t.Context(), post))(t)
	if string(again.Body) != string(first.Body) || again.Version != first.Version || !again.Replayed || again.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%+v", again)
	}
}

func TestARequestThatWaitedTooLongIsNotRun(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	impatient := registers
	impatient.Limits.QueueAge = 20 * time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{impatient} })
	w.ready(worker)
	began, release := block(t, "slow")
	first, second := make(chan error, 1), make(chan error, 1)
	ask := func(method string, c chan error) {
		worker.submit(t.Context(), Request{Class: "register", Name: "slow", Method: method, Body: []byte("1")}, func(_ Reply, err error) { c <- err })
	}
	ask("block", first)
	<-began
	ask("add", second)
	since := worker.awake()
	eventually(t, "the second has waited too long", func() bool { return worker.awake()-since > 25*time.Millisecond })
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if e := wantCode(t, <-second, Overloaded, "waited", "at most 20ms"); e.RetryAfter == 0 {
		t.Error("no Retry-After")
	}
	if r := must(worker.Do(t.Context(), Request{Class: "register", Name: "slow", Method: "value"}))(t); string(r.Body) != "1" {
		t.Errorf("%s", r.Body)
	}
}

func TestTooMuchWaitingForAllObjectsIsOverload(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.QueueBytes = 1 << 20 })
	w.ready(worker)
	began, release := block(t, "held")
	held := make(chan error, 1)
	worker.submit(t.Context(), Request{Class: "register", Name: "held", Method: "block", Body: []byte("1")}, func(_ Reply, err error) { held <- err })
	<-began
	body := []byte(`"` + strings.Repeat("x", 300<<10) + `"`)
	answers := make(chan error, 10)
	for range 4 {
		worker.submit(t.Context(), Request{Class: "register", Name: "held", Method: "write", Body: body}, func(_ Reply, err error) { answers <- err })
	}
	wantCode(t, <-answers, Overloaded, "all objects of this worker") // the fourth; three wait
	close(release)
	for range 3 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := <-held; err != nil {
		t.Error(err)
	}
}

func TestWhenTheDiskIsFullReadsGoOn(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.MayWrite = func() error { return errors.New("3 bytes are free") } })
	w.ready(worker)
	eventually(t, "full", func() bool { return worker.Status().DiskFull != "" })
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")})
	if e := wantCode(t, err, Full, "3 bytes are free"); e.RetryAfter == 0 {
		t.Error("no Retry-After")
	}
	must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
}

func TestACallerThatGivesUpIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	began, release := block(t, "left")
	ctx, leave := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := worker.Do(ctx, Request{Class: "register", Name: "left", Method: "block", Body: []byte("5")})
		result <- err
	}()
	<-began
	leave()
	wantCode(t, <-result, UnknownOutcome)
	close(release)
	eventually(t, "the turn ends", func() bool {
		r, err := worker.Do(t.Context(), Request{Class: "register", Name: "left", Method: "value"})
		return err == nil && string(r.Body) == "5"
	})
}

func TestAPanicIsForTheLog(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	var log lockedBuffer
	worker := w.worker("w", func(c *Config) {
		c.Classes, c.Log = []AnyClass{slashes}, slog.New(slog.NewJSONHandler(&log, nil))
	})
	env := NewClient(worker).With(t.Context())
	_, err := Call(env, slashes.Get("a"), (*slashed).Panic, nil)
	e := wantCode(t, err, Internal)
	if out, _ := json.Marshal(ProblemOf(e)); strings.Contains(string(out), "secret") || e.RequestID == "" {
		t.Errorf("the caller is told %s", out)
	}
	for _, want := range []string{"secret of a", "storage_test.go", e.RequestID, "slashed/a"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has nothing of %q:\n%s", want, log.String())
		}
	}
	if n := must(Read(env, slashes.Get("a"), (*slashed).N, nil))(t); n != 0 {
		t.Errorf("the panic changed something: %d", n)
	}
	_, err = Call(env, slashes.Get("a"), (*slashed).Put, nil)
	wantCode(t, err, Internal, "has a slash")
	_, err = Call(env, slashes.Get("a"), (*slashed).PutMap, nil)
	wantCode(t, err, Internal, "has a slash")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// relay makes the same call to a third object, whoever it is.
type relay struct{}

var relays = Class[relay]{Name: "relay"}

func (*relay) Push(ctx *Ctx, to string) (int64, error) {
	return Call(ctx, registers.Get(to), (*register).Add, 1)
}

func TestTheSameIDAtTwoObjectsIsTwoRequests(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = append(c.Classes, relays) })
	env := NewClient(worker).With(t.Context())
	for range 2 {
		for i, name := range []string{"a", "b"} { // each sent the same id, each calling the same third
			if n := must(Call(env, relays.Get(name), (*relay).Push, "c", RequestID("order-17")))(t); n != int64(i+1) {
				t.Errorf("%s: %d", name, n)
			}
		}
	}
	long := RequestID(strings.Repeat("x", RequestIDBytesMax))
	for range 2 {
		if n := must(Call(env, relays.Get("a"), (*relay).Push, "c", long))(t); n != 3 {
			t.Errorf("with the longest id: %d", n)
		}
	}
}

// TestACallWithoutALeaseDoesNotLeave: what a deposed owner's turn asks for rests on a state that may be stale.
func TestACallWithoutALeaseDoesNotLeave(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = append(c.Classes, relays) })
	w.ready(worker)
	push := func(to string) error {
		_, err := worker.Do(t.Context(), Request{Class: "relay", Name: "a", Method: "push", Body: []byte(`"` + to + `"`)})
		return err
	}
	if err := push("before"); err != nil {
		t.Fatal(err)
	}
	worker.epochs[partitionOf("relay", "a")].Load().ses.void()
	wantCode(t, push("after"), Unavailable)
	for _, m := range w.server.Messages(stream(registers.Get("after"))) {
		if strings.HasSuffix(m.Subject, ".register.after") {
			t.Errorf("the call has left, and is at %d", m.Seq)
		}
	}
}

func TestAReadOnlyClassServesReadsAndIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	ro := registers
	ro.Name, ro.Limits.ReadOnly = "ro", true
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{ro} })
	env := NewClient(worker).With(t.Context())
	if n := must(Read(env, ro.Get("a"), (*register).Value, nil))(t); n != 0 {
		t.Errorf("%d", n)
	}
	_, err := Call(env, ro.Get("a"), (*register).Add, 1)
	if e := wantCode(t, err, Denied, "serves reads only"); e.Retryable() {
		t.Error("it would be repeated")
	}
	_, err = worker.Do(t.Context(), Request{Class: "ro", Name: "a", HTTP: &HTTPRequest{Method: "POST", URL: "/ro/a"}})
	wantCode(t, err, Denied, "serves reads only")
	must(worker.Do(t.Context(), Request{Class: "ro", Name: "a", HTTP: &HTTPRequest{Method: "GET", URL: "/ro/a"}}))(t)
}

func TestADeadlineTooFarAheadIsRefused(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	far := time.Now().Add(2 * time.Hour)
	for _, r := range []Request{{Deadline: far}, {Session: &SessionNumber{Sender: "s", N: 1, M: 1, Deadline: far}}} {
		r.Class, r.Name, r.Method = "register", "a", "value"
		_, err := worker.Do(t.Context(), r)
		wantCode(t, err, Invalid, "more than 1h0m0s ahead")
	}
}

// teller has an OnWake that tells of the state.
type teller struct{}

var tellers = Class[teller]{Name: "teller"}

func (*teller) OnWake(v View) error {
	if n := total.Get(v); n > 0 {
		return Errorf(Refused, "total is %d", n)
	}
	return nil
}
func (*teller) Add(ctx *Ctx, _ None) (None, error)  { total.Put(ctx, 1); return nil, nil }
func (*teller) Boom(ctx *Ctx, _ None) (None, error) { panic("boom") }

func TestTheErrorOfAnOnWakeWaitsAtTheGate(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	plan := &journaltest.Plan{Append: func(int, int) journaltest.Fault { return journaltest.Hold }}
	worker := w.worker("w", func(c *Config) {
		c.Classes = []AnyClass{tellers}
		c.Connect = func(context.Context) (journal.Session, error) {
			return journaltest.Faulty(w.server.Session("objects", worldPartitions), plan), nil
		}
	})
	w.ready(worker)
	ask := func(method string) chan error {
		c := make(chan error, 1)
		worker.submit(t.Context(), Request{Class: "teller", Name: "a", Method: method}, func(_ Reply, err error) { c <- err })
		return c
	}
	add := ask("add")
	eventually(t, "the append has no answer", func() bool { return plan.Held() == 1 })
	boom, told := ask("boom"), ask("add") // the panic drops the activation; the next request wakes another
	o := residentObject(worker, "teller", "a")
	eventually(t, "all at the gate", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.waiters) == 3 })
	select {
	case err := <-told:
		t.Fatalf("told of a change that is not durable: %v", err)
	default:
	}
	plan.Release()
	if err := <-add; err != nil {
		t.Error(err)
	}
	wantCode(t, <-boom, Internal)
	wantCode(t, <-told, Refused, "total is 1")
}

// TestSentIsUnknownWhateverElseWaits: a change that was sent is never said not to have happened.
func TestSentIsUnknownWhateverElseWaits(t *testing.T) {
	t.Parallel()
	plan := &journaltest.Plan{Append: func(int, int) journaltest.Fault { return journaltest.Hold }}
	w := newServer(t)
	worker := w.worker("w", func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return journaltest.Faulty(s, plan), err
		}
	})
	w.ready(worker)
	ask := func(id string) chan error {
		c := make(chan error, 1)
		worker.submit(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), ID: id}, func(_ Reply, err error) { c <- err })
		return c
	}
	first := ask("1")
	eventually(t, "sent", func() bool { return plan.Held() == 1 })
	second := ask("2")
	eventually(t, "sent", func() bool { return plan.Held() == 2 })
	o := residentObject(worker, "register", "a")
	repeat := ask("1")
	eventually(t, "all wait", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.waiters) == 3 })
	o.ep.end(errors.New("test"))
	wantCode(t, <-first, UnknownOutcome)
	wantCode(t, <-repeat, UnknownOutcome) // the code: as a cause it may be inside another error
	wantCode(t, <-second, UnknownOutcome)
}

// script is a class in another language, whose reply is its argument.
type script struct{ b Behavior }

func (s script) Bind() (*Behavior, error) { return &s.b, nil }

type scriptAct struct{}

func (scriptAct) Invoke(ctx *Ctx, method string, in []byte) ([]byte, error) {
	ctx.Raw().Put("k", []byte("1"))
	return in, nil
}
func (scriptAct) Apply(string, []byte) error { return nil }
func (scriptAct) State() ([]byte, error)     { return nil, nil }
func (scriptAct) Hooks() any                 { return nil }

func TestAReplyThatIsNoJSONFailsItsTurn(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	js := script{Behavior{Name: "js", Methods: map[string]Method{"set": {}}, Activate: func([]byte) (Activation, error) { return scriptAct{}, nil }}}
	how := func(c *Config) { c.Classes = []AnyClass{js} }
	worker := w.worker("w", how)
	w.ready(worker)
	set := func(body string) (Reply, error) {
		return worker.Do(t.Context(), Request{Class: "js", Name: "a", Method: "set", Body: []byte(body)})
	}
	_, err := set("undefined")
	wantCode(t, err, Internal, "not JSON")
	worker.Kill()
	worker = w.worker("w", how)
	w.ready(worker)
	if r := must(set("1"))(t); r.Version != 1 {
		t.Errorf("version %d", r.Version)
	}
}

// TestAWorkerThatDrainsFinishesWhatItHas, also of the requests that came through the network.
func TestAWorkerThatDrainsFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	var serve atomic.Pointer[func(Request, func(Reply, error))]
	name := namesIn(0, 1)[0] + "-drained"
	p := partitionOf("register", name)
	worker := w.worker("w", func(c *Config) {
		c.Listen = func(_ journal.Session, partition int, f func(Request, func(Reply, error))) (func(), error) {
			if partition == p {
				serve.Store(&f)
			}
			return func() {}, nil
		}
	})
	w.ready(worker)
	pair := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	gates.Store(name, pair)
	answers := make(chan error, 2)
	for _, method := range []string{"block", "add"} { // one runs, and one waits
		(*serve.Load())(Request{Class: "register", Name: name, Method: method, Body: []byte("1")}, func(_ Reply, err error) { answers <- err })
	}
	<-pair[0]
	stopped := make(chan struct{})
	go func() { worker.Stop(); close(stopped) }()
	<-worker.life.Done()
	close(pair[1])
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	<-stopped
}
