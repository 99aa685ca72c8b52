package orders

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to look into the ledger's model
)

const (
	clients   = 4
	carts     = 3
	skus      = 5
	received  = 100 // of each SKU: fewer than are ordered, so that some orders are refused
	killsEach = 4
	ordersMin = 120 // about 840 pieces of what there are 500 of
	countMax  = 6
)

type order struct {
	ID    string `json:"id"`
	Cart  string `json:"cart"`
	Items []item `json:"items"`
}

type item struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

func cart(n int) string { return fmt.Sprintf("ann%d@example.com", n) }
func sku(n int) string  { return fmt.Sprintf("pear/%d", n) }

// world is the server, the two services, and what the clients were told.
type world struct {
	t                    *testing.T
	server, shop, ledger *process
	bin, gateway, nats   string
	db                   string

	mu       sync.Mutex
	accepted map[string]order
	again    int // how often an order was sent once more
}

func newWorld(t *testing.T) *world {
	dir, listen, natsAt := t.TempDir(), freeAddress(t), freeAddress(t)
	w := &world{t: t, gateway: "http://" + listen, nats: "nats://" + natsAt, db: filepath.Join(dir, "ledger.db"), accepted: map[string]order{}}
	w.bin = build(t, "../..", "./cmd/perdure")
	start := func(alive string, argv ...string) *process {
		p := &process{t: t, argv: argv, alive: alive}
		t.Cleanup(p.kill)
		p.begin()
		return p
	}
	shopAt, ledgerAt := freeAddress(t), freeAddress(t)
	w.server = start(w.gateway+"/readyz", w.bin, "dev", "--data", filepath.Join(dir, "data"), "--listen", listen, "--nats-listen", natsAt, "--partitions", "4")
	w.shop = start("http://"+shopAt+"/orders", build(t, ".", "./shop"), "-listen", shopAt, "-nats", w.nats)
	w.ledger = start("http://"+ledgerAt+"/stock", build(t, ".", "./ledger"), "-listen", ledgerAt, "-feed", w.gateway, "-db", w.db)
	return w
}

// TestOrdersSurviveKills kills the server, the shop and the ledger at moments of their own while clients order. Each order
// that was accepted is applied once at each object, and the ledger has all that the objects have, and nothing twice. SEED=n
// repeats the moments and the orders.
func TestOrdersSurviveKills(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and kills three programs")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d repeats the moments and the orders", seed)
	w := newWorld(t)
	for n := range skus {
		w.ask("POST", w.gateway+"/v1/objects/stock/"+escaped(sku(n))+"/call/receive", fmt.Sprintf(`{"count":%d}`, received), nil)
	}
	ctx, stop := context.WithCancel(t.Context())
	var ordering, killing sync.WaitGroup
	for n := range clients {
		ordering.Go(func() { w.orders(ctx, n, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	for n, p := range []*process{w.server, w.shop, w.ledger} {
		random := rand.New(rand.NewPCG(seed, uint64(clients+n)))
		killing.Go(func() {
			for range killsEach {
				<-time.After(time.Duration(100+random.IntN(700)) * time.Millisecond)
				p.kill()
				p.begin()
			}
		})
	}
	killing.Wait()
	for w.ordered() < ordersMin && t.Context().Err() == nil { // on a slow machine few were accepted between the kills
		<-time.After(10 * time.Millisecond)
	}
	stop()
	ordering.Wait()
	w.shop.kill() // what it has not sent yet is not sent any more
	w.shop.begin()
	w.end()
	w.check()
	for _, p := range []*process{w.server, w.shop, w.ledger} {
		if p.kills < killsEach {
			t.Errorf("%s was killed %d times", p.argv[0], p.kills)
		}
	}
}

// orders orders until ctx ends, each order until it is accepted, and some once more.
func (w *world) orders(ctx context.Context, who int, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		o := order{ID: fmt.Sprintf("o%d-%d", who, n), Cart: cart(random.IntN(carts))}
		for _, k := range random.Perm(skus)[:1+random.IntN(3)] {
			o.Items = append(o.Items, item{sku(k), 1 + random.IntN(countMax)})
		}
		w.order(o)
		if random.IntN(4) == 0 {
			w.order(o)
		}
	}
}

// ordered is how many orders were accepted.
func (w *world) ordered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accepted)
}

// order sends an order until it is accepted.
func (w *world) order(o order) {
	body, err := json.Marshal(o)
	if err != nil {
		w.t.Error(err)
		return
	}
	for tries := 0; w.t.Context().Err() == nil; tries++ {
		resp, err := http.Post(w.shop.alive, "application/json", bytes.NewReader(body))
		if err == nil {
			resp.Body.Close()
		}
		switch {
		case err == nil && resp.StatusCode == http.StatusAccepted:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.accepted[o.ID] = o
			w.again += tries
			return
		case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
			w.t.Errorf("%s: %s", body, resp.Status)
			return
		}
		<-time.After(20 * time.Millisecond) // one of the three is down
	}
}

// end sends an order behind all others of each object, and waits until the ledger has them: then all others are answered.
func (w *world) end() {
	for n := range max(carts, skus) {
		w.order(order{fmt.Sprint("end", n), cart(n % carts), []item{{sku(n % skus), 1}}})
	}
	url := strings.TrimSuffix(w.ledger.alive, "/stock") + "/orders/end"
	for n := range max(carts, skus) {
		for deadline := time.Now().Add(15 * time.Second); ; {
			var lines []json.RawMessage
			w.ask("GET", url+fmt.Sprint(n), "", &lines)
			if len(lines) == 2 {
				break
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("the ledger has %s of order end%d\n%s", lines, n, w.ledger.stderr.Bytes())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// ask asks over HTTP, and wants an answer.
func (w *world) ask(method, url, body string, answer any) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err == nil && answer != nil {
		err = json.Unmarshal(all, answer)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s: %s, %v", url, resp.Status, all, err)
	}
}

func escaped(name string) string { return strings.ReplaceAll(name, "/", "%2F") }

// entry is a commit in an object's journal.
type entry struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Inbox   *struct {
		Outcome string `json:"outcome"`
	} `json:"inbox"`
}

// check holds the journals of all objects against what was accepted, and the ledger's database against them.
func (w *world) check() {
	model := w.model()
	applied, refused, repeats := 0, 0, 0
	outcomes := map[string]string{} // by object, order and SKU
	for _, object := range objects() {
		last, counted := 0, 0
		for e := range w.journal(object) {
			if last++; e.Version != last {
				w.t.Errorf("%s: version %d behind %d", object, e.Version, last-1)
			}
			outcome := "applied"
			switch {
			case e.Inbox == nil:
				continue // what was received
			case e.Inbox.Outcome == "repeat":
				repeats++
				continue
			case e.Inbox.Outcome == "refused":
				outcome = "refused"
				refused++
			case e.Inbox.Outcome != "":
				w.t.Errorf("%s: %s is %s", object, e.ID, e.Inbox.Outcome)
			default:
				applied++
			}
			counted++
			key := object + " " + e.ID
			if outcomes[key] != "" {
				w.t.Errorf("%s is answered twice", key)
			}
			outcomes[key] = outcome
			if row := fmt.Sprintf("outcome %s %d %s %s", object, e.Version, e.ID, outcome); !model[row] {
				w.t.Errorf("the ledger has not: %s", row)
			} else {
				delete(model, row)
			}
		}
		if row := fmt.Sprintf("object %s %d", object, last); !model[row] {
			w.t.Errorf("the ledger has not: %s", row)
		} else {
			delete(model, row)
		}
		if counted == 0 {
			w.t.Errorf("nobody ordered from %s", object)
		}
	}
	w.checkState(model, outcomes)
	for row := range model {
		w.t.Errorf("only the ledger has: %s", row)
	}
	if out, err := exec.Command(w.bin, "verify", "--server", w.nats).CombinedOutput(); err != nil {
		w.t.Errorf("perdure verify: %v\n%s", err, out)
	}
	w.t.Logf("%d orders accepted, %d tries in vain; %d messages applied, %d refused, %d repeats", len(w.accepted), w.again, applied, refused, repeats)
	if w.again == 0 || refused == 0 || repeats == 0 {
		w.t.Error("nothing had to be tried again, or refused, or was a repeat: the test is too easy")
	}
}

func objects() (list []string) {
	for n := range skus {
		list = append(list, "stock/"+sku(n))
	}
	for n := range carts {
		list = append(list, "cart/"+cart(n))
	}
	return list
}

// checkState holds the state of each object against the orders that it has applied, and the ledger against the state.
func (w *world) checkState(model map[string]bool, outcomes map[string]string) {
	want := map[string]int{} // stored keys, by object
	for n := range skus {
		want["stock/"+sku(n)+" free"] = received
	}
	for _, o := range w.accepted {
		for _, i := range o.Items {
			inCart, inStock := "cart/"+o.Cart, "stock/"+i.SKU
			added, held := outcomes[inCart+" "+o.ID+"/"+i.SKU], outcomes[inStock+" "+o.ID+"/"+i.SKU]
			if added == "" || held == "" {
				w.t.Errorf("order %+v was accepted, and is missing: %q in the cart, %q in the stock", o, added, held)
			}
			if added == "applied" {
				want[inCart+" lines/"+i.SKU] += i.Count
			}
			if held == "applied" {
				want[inStock+" free"] -= i.Count
				want[inStock+" reserved/"+o.ID] = i.Count
			}
		}
	}
	for _, object := range objects() {
		class, name, _ := strings.Cut(object, "/")
		var have struct {
			Storage map[string]json.RawMessage `json:"storage"`
		}
		w.ask("GET", w.gateway+"/v1/objects/"+class+"/"+escaped(name)+"/state", "", &have)
		for key, value := range have.Storage {
			line := item{}
			if json.Unmarshal(value, &line.Count) != nil && json.Unmarshal(value, &line) != nil {
				w.t.Errorf("%s: %s is %s", object, key, value)
			}
			if want[object+" "+key] != line.Count {
				w.t.Errorf("%s: %s is %d, and comes to %d", object, key, line.Count, want[object+" "+key])
			}
			delete(want, object+" "+key)
			row := fmt.Sprintf("%s %s %d", object, key, line.Count)
			if !model[row] && !strings.HasPrefix(key, "reserved/") {
				w.t.Errorf("the ledger has not: %s", row)
			}
			delete(model, row)
		}
	}
	for key, n := range want {
		w.t.Errorf("%s comes to %d, and is not there", key, n)
	}
}

// journal are the commits of an object.
func (w *world) journal(object string) func(yield func(entry) bool) {
	return func(yield func(entry) bool) {
		class, name, _ := strings.Cut(object, "/")
		for from, more := 0, true; more; {
			resp, err := http.Get(fmt.Sprintf("%s/v1/objects/%s/%s/journal?from=%d", w.gateway, class, escaped(name), from))
			if err != nil || resp.StatusCode != http.StatusOK {
				w.t.Fatalf("%s: %v, %v", object, resp, err)
			}
			defer resp.Body.Close()
			more = false
			for d := json.NewDecoder(resp.Body); ; {
				var e struct {
					entry
					Seq     int    `json:"seq"`
					Problem string `json:"problem"`
				}
				if err := d.Decode(&e); errors.Is(err, io.EOF) {
					break
				} else if err != nil || e.Problem != "" {
					w.t.Fatalf("%s: %v, %s", object, err, e.Problem)
				}
				if from, more = e.Seq+1, true; !yield(e.entry) {
					return
				}
			}
		}
	}
}

// model is what the ledger has, from its database, a word for each row.
func (w *world) model() map[string]bool {
	db, err := sql.Open("sqlite", "file:"+w.db+"?mode=ro")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT 'object ' || class || '/' || name || ' ' || version FROM object
		UNION ALL SELECT 'outcome ' || class || '/' || name || ' ' || version || ' ' || "order" || '/' || sku || ' ' || outcome FROM outcome
		UNION ALL SELECT 'stock/' || sku || ' free ' || free FROM stock
		UNION ALL SELECT 'cart/' || cart || ' lines/' || sku || ' ' || count FROM line`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]bool{}
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			w.t.Fatal(err)
		}
		all[row] = true
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}
