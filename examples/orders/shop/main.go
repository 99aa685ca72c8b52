// Command shop takes orders over HTTP and sends them to objects. It knows nothing of Perdure but one subject,
// objects.send.<class>.<name>.<method>, and one header: all that it does is net/http and a JetStream publish.
//
// It keeps nothing. An order is accepted, 202, when all its messages are stored; until then whoever orders asks again. The
// ids of the messages come from the order's id, so each of them applies once, whoever sent it again and however often: the
// client, because no answer came, or because the shop or the server died half way.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// order is what a client asks for.
type order struct {
	ID    string `json:"id"` // the client's own: the same order, the same id
	Cart  string `json:"cart"`
	Items []item `json:"items"`
}

type item struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

const (
	itemsMax  = 100
	nameMax   = 120 // bytes: an order's id and a SKU make the id of a message, which has at most 256
	storedIn  = 5 * time.Second
	bodyBytes = 64 << 10
)

// check says what is wrong with an order that can never be taken.
func (o order) check() error {
	if !named(o.ID) || strings.Contains(o.ID, "/") || !named(o.Cart) {
		return fmt.Errorf("want an id and a cart of 1 to %d bytes, no / in the id", nameMax)
	}
	if len(o.Items) == 0 || len(o.Items) > itemsMax {
		return fmt.Errorf("want 1 to %d items", itemsMax)
	}
	seen := map[string]bool{}
	for _, i := range o.Items {
		if !named(i.SKU) || seen[i.SKU] || i.Count < 1 || i.Count > 1000 {
			return fmt.Errorf("want each sku once, with a count of 1 to 1000; %q is not so", i.SKU)
		}
		seen[i.SKU] = true
	}
	return nil
}

func named(s string) bool {
	return s != "" && len(s) <= nameMax && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// messages are what the order comes to: each item goes into the cart, and is reserved from the stock.
func (o order) messages() (list []*nats.Msg) {
	for _, i := range o.Items {
		id := o.ID + "/" + i.SKU
		list = append(list,
			message("cart", o.Cart, "add", id, i),
			message("stock", i.SKU, "reserve", id, map[string]any{"order": o.ID, "count": i.Count}))
	}
	return list
}

// message is a message to an object. The id is what makes it safe to publish again.
func message(class, name, method, id string, argument any) *nats.Msg {
	body, err := json.Marshal(argument)
	if err != nil {
		panic(err) // strings and numbers
	}
	return &nats.Msg{Subject: "objects.send." + class + "." + token(name) + "." + method, Data: body,
		Header: nats.Header{"Perdure-Request-Id": {id}, "Perdure-Caller": {"shop"}}}
}

// token is a name as one token of a subject.
func token(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(".*>%", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// take answers POST /orders.
func take(js jetstream.JetStream) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var o order
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytes)).Decode(&o)
		if err == nil {
			err = o.check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), storedIn)
		defer cancel()
		for _, m := range o.messages() {
			if _, err := js.PublishMsg(ctx, m); err != nil { // stored or not, nobody knows: the order is not accepted
				w.Header().Set("Retry-After", "1")
				http.Error(w, "order it again, under the same id: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		w.WriteHeader(http.StatusAccepted)
	}
}

// It has nothing to lose, so nothing is done at its end: killing it is how to stop it.
func main() {
	listen := flag.String("listen", "localhost:8081", "where orders come")
	url := flag.String("nats", nats.DefaultURL, "the NATS server")
	flag.Parse()
	nc, err := nats.Connect(*url, nats.Name("shop"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", take(js))
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
