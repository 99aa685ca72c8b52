// Command ledger keeps a read model: what became of each order, what is in the carts, and what is free, in SQLite, from what
// objects commit. It knows nothing of Perdure but GET /v1/changes.
//
// Rows and the place in the feed are written in one transaction. So whenever the ledger dies, what it has is what the
// objects were at that place, and it goes on behind it: no event is applied twice, and none is missed.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"time"
)

const (
	batchMax  = 500              // events in one transaction
	lineBytes = 1 << 20          // a buffer, not a limit
	silence   = 45 * time.Second // three heartbeats: the connection is dead
	again     = 200 * time.Millisecond
)

// event is a line of the feed: a change, a heartbeat, or the end, with the place behind it.
type event struct {
	Event string          `json:"event"`
	ID    string          `json:"id"`
	Data  json.RawMessage `json:"data"`
}

// lasting is an error that does not go away by asking again.
type lasting struct{ error }

// follow applies what the feed tells until the connection ends. It begins at the place that the model has.
func follow(ctx context.Context, db *sql.DB, feed string) error {
	place, err := placeOf(ctx, db)
	if err != nil {
		return lasting{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive := time.AfterFunc(silence, cancel)
	defer alive.Stop()
	r, err := http.NewRequestWithContext(ctx, "GET", feed+"/v1/changes?from="+url.QueryEscape(place), nil)
	if err != nil {
		return lasting{err}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, lineBytes)
	if resp.StatusCode != http.StatusOK {
		problem, _ := lines.ReadString('\n') // it is told as far as it came
		err := fmt.Errorf("from %s: %s: %s", place, resp.Status, problem)
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
			return lasting{err}
		}
		return err
	}
	for {
		batch, err := read(lines)
		if err != nil {
			return err
		}
		alive.Reset(silence)
		if err := apply(ctx, db, batch); err != nil {
			return lasting{err}
		}
	}
}

// read reads an event, and those behind it that came already.
func read(lines *bufio.Reader) (batch []event, err error) {
	for len(batch) == 0 || len(batch) < batchMax && lines.Buffered() > 0 {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		if e.Event == "end" {
			log.Printf("the feed ends: %s", e.Data)
		}
		batch = append(batch, e)
	}
	return batch, nil
}

func main() {
	listen := flag.String("listen", "localhost:8082", "where it is asked")
	feed := flag.String("feed", "http://localhost:8080", "the gateway that tells what changes")
	file := flag.String("db", "ledger.db", "the SQLite database")
	flag.Parse()
	db, err := open(*file)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		server := &http.Server{Addr: *listen, Handler: questions(db), ReadHeaderTimeout: 10 * time.Second}
		log.Fatal(server.ListenAndServe())
	}()
	for {
		err := follow(context.Background(), db, *feed)
		if _, ok := errors.AsType[lasting](err); ok {
			log.Fatal(err) // loudly, rather than with a model that is wrong
		}
		log.Printf("again in %v: %v", again, err)
		<-time.After(again)
	}
}
