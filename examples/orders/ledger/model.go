package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	_ "modernc.org/sqlite" // the driver, in Go alone
)

// schema is the read model. The place is of the same transaction as the rows, and only therefore is it true.
const schema = `
CREATE TABLE IF NOT EXISTS place   (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS object  (class TEXT, name TEXT, version INTEGER NOT NULL, PRIMARY KEY (class, name));
CREATE TABLE IF NOT EXISTS stock   (sku TEXT PRIMARY KEY, free INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS line    (cart TEXT, sku TEXT, count INTEGER NOT NULL, PRIMARY KEY (cart, sku));
CREATE TABLE IF NOT EXISTS outcome (class TEXT, name TEXT, version INTEGER, "order" TEXT NOT NULL, sku TEXT NOT NULL,
                                    outcome TEXT NOT NULL, PRIMARY KEY (class, name, version));
CREATE INDEX IF NOT EXISTS outcome_order ON outcome ("order");
INSERT INTO place VALUES (1, 'start') ON CONFLICT DO NOTHING`

// open opens the model, and makes it if it is not there. With synchronous NORMAL a power cut may take the last transactions,
// each whole: then the place is an earlier one too, and they come again.
func open(file string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err == nil {
		_, err = db.Exec(schema)
	}
	return db, err
}

func placeOf(ctx context.Context, db *sql.DB) (id string, err error) {
	return id, db.QueryRowContext(ctx, `SELECT id FROM place`).Scan(&id)
}

// commit is what a change tells: one commit of one object.
type commit struct {
	Class   string `json:"class"`
	Name    string `json:"name"`
	Version int64  `json:"version"`
	ID      string `json:"id"`
	Inbox   *struct {
		Outcome string `json:"outcome"` // empty: applied
	} `json:"inbox"` // the message that the commit answers
	Changes []struct {
		Kind  string          `json:"kind"`
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	} `json:"changes"`
}

// apply writes a batch and its place, all or nothing.
func apply(ctx context.Context, db *sql.DB, batch []event) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	for _, e := range batch {
		if e.Event != "change" {
			continue
		}
		var c commit
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return fmt.Errorf("%s: %w", e.Data, err)
		}
		if c.Class != "cart" && c.Class != "stock" {
			continue
		}
		if err := c.write(ctx, tx); err != nil {
			return fmt.Errorf("event %s: %s/%s: %w", e.ID, c.Class, c.Name, err)
		}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE place SET id = ?`, batch[len(batch)-1].ID); err != nil {
		return err
	}
	return tx.Commit()
}

// write writes one commit, if it is the object's next. The feed promises that, and this sees to it.
func (c commit) write(ctx context.Context, tx *sql.Tx) error {
	var last int64
	err := tx.QueryRowContext(ctx, `SELECT version FROM object WHERE class = ? AND name = ?`, c.Class, c.Name).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil // its first
	}
	if err != nil {
		return err
	}
	if c.Version != last+1 {
		return fmt.Errorf("version %d comes behind %d: an event is told twice, or one is missing", c.Version, last)
	}
	do := func(query string, args ...any) {
		if err == nil {
			_, err = tx.ExecContext(ctx, query, args...)
		}
	}
	do(`INSERT INTO object VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version`, c.Class, c.Name, c.Version)
	for _, change := range c.Changes {
		sku, isLine := strings.CutPrefix(change.Key, "lines/")
		switch {
		case c.Class == "stock" && change.Key == "free":
			do(`INSERT INTO stock VALUES (?, ?) ON CONFLICT DO UPDATE SET free = excluded.free`, c.Name, string(change.Value))
		case c.Class == "cart" && isLine && change.Kind == "put":
			do(`INSERT INTO line VALUES (?, ?, ? ->> 'count') ON CONFLICT DO UPDATE SET count = excluded.count`, c.Name, sku, string(change.Value))
		case c.Class == "cart" && isLine && change.Kind == "delete":
			do(`DELETE FROM line WHERE cart = ? AND sku = ?`, c.Name, sku)
		}
	}
	order, sku, ordered := strings.Cut(c.ID, "/") // as the shop makes ids
	if ordered && c.Inbox != nil && c.Inbox.Outcome != "repeat" {
		outcome := c.Inbox.Outcome
		if outcome == "" {
			outcome = "applied"
		}
		do(`INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)`, c.Class, c.Name, c.Version, order, sku, outcome)
	}
	return err
}

// questions answers GET /orders/{id}, GET /carts/{name} and GET /stock, from the model alone.
func questions(db *sql.DB) http.Handler {
	mux := http.NewServeMux()
	rows := func(query string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var all string
			if err := db.QueryRowContext(r.Context(), query, r.PathValue("id")).Scan(&all); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintln(w, all)
		}
	}
	mux.HandleFunc("GET /orders/{id}", rows(`SELECT json_group_array(json_object('object', class || '/' || name, 'sku', sku, 'outcome', outcome))
		FROM (SELECT * FROM outcome WHERE "order" = ? ORDER BY sku, class)`))
	mux.HandleFunc("GET /carts/{id}", rows(`SELECT json_group_object(sku, count) FROM (SELECT * FROM line WHERE cart = ? ORDER BY sku)`))
	mux.HandleFunc("GET /stock", rows(`SELECT json_group_object(sku, free) FROM (SELECT * FROM stock WHERE ? = '' ORDER BY sku)`))
	return mux
}
