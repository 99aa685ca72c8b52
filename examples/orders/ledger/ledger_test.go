package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// told is one event as the feed writes it.
func told(id, class, name string, version int, rest string) string {
	return fmt.Sprintf(`{"event":"change","id":%q,"data":{"class":%q,"name":%q,"version":%d%s}}`+"\n", id, class, name, version, rest)
}

// TestTheModelFollowsAndRefusesWhatDoesNotFollow hands the ledger feeds that end, one after the other.
func TestTheModelFollowsAndRefusesWhatDoesNotFollow(t *testing.T) {
	t.Parallel()
	db, err := open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	free := func(n int) string { return fmt.Sprintf(`,"changes":[{"kind":"put","key":"free","value":%d}]`, n) }
	const line = `,"changes":[{"kind":"put","key":"lines/a/b","value":{"sku":"a/b","count":2}}]`
	for _, step := range []struct {
		from, feed  string
		place, says string // says: why it stops for good
		stock       string
	}{
		{"start", told("1", "stock", "pear", 1, free(10)) + told("2", "stock", "pear", 2, `,"id":"17/pear","inbox":{"seq":1}`+free(7)), "2", "", `{"pear":7}`},
		{"2", `{"event":"heartbeat","id":"3"}` + "\n", "3", "", `{"pear":7}`},
		{"3", told("4", "counter", "x", 9, ""), "4", "", `{"pear":7}`}, // no business of this model
		{"4", told("5", "stock", "pear", 3, `,"id":"18/pear","inbox":{"seq":2,"outcome":"refused"}`) +
			told("6", "stock", "pear", 4, `,"id":"17/pear","inbox":{"seq":3,"outcome":"repeat"}`) +
			told("7", "cart", "ann", 1, `,"id":"17/a/b","inbox":{"seq":4}`+line), "7", "", `{"pear":7}`},
		{"7", told("8", "stock", "fig", 1, free(1)) + told("9", "stock", "pear", 4, free(1)), "7", "version 4 comes behind 4", `{"pear":7}`}, // twice: nothing of the batch is kept
		{"7", told("8", "stock", "pear", 6, free(1)), "7", "version 6 comes behind 4", `{"pear":7}`},                                         // a gap
		{"7", `{"event":"end","id":"8","data":{"code":"overloaded"}}` + "\n", "8", "", `{"pear":7}`},
		{"8", told("9", "stock", "pear", 5, free(1))[:40], "8", "", `{"pear":7}`}, // the connection is lost in the middle
		{"8", "", "8", "409", `{"pear":7}`},
		{"8", told("9", "cart", "ann", 2, `,"changes":[{"kind":"delete","key":"lines/a/b"}]`), "9", "", `{"pear":7}`},
	} {
		gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if from := r.URL.Query().Get("from"); from != step.from {
				t.Errorf("it begins at %q, want %q", from, step.from)
			}
			if step.says == "409" {
				w.WriteHeader(http.StatusConflict)
			}
			_, _ = io.WriteString(w, step.feed)
		}))
		err := follow(t.Context(), db, gateway.URL)
		gateway.Close()
		_, stops := errors.AsType[lasting](err)
		if stops != (step.says != "") || !strings.Contains(err.Error(), step.says) {
			t.Errorf("%s: %v, want %q", step.feed, err, step.says)
		}
		if place, err := placeOf(t.Context(), db); err != nil || place != step.place {
			t.Errorf("%s: the place is %q, want %q; %v", step.feed, place, step.place, err)
		}
		ask(t, questions(db), "/stock", step.stock)
		if step.place == "7" {
			ask(t, questions(db), "/carts/ann", `{"a/b":2}`)
		}
	}
	ask(t, questions(db), "/carts/ann", `{}`)
	ask(t, questions(db), "/orders/17", `[{"object":"cart/ann","sku":"a/b","outcome":"applied"},{"object":"stock/pear","sku":"pear","outcome":"applied"}]`)
	ask(t, questions(db), "/orders/18", `[{"object":"stock/pear","sku":"pear","outcome":"refused"}]`)
}

func ask(t *testing.T, h http.Handler, path, want string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("%s: %s, want %s", path, got, want)
	}
}

// TestRowsAndPlaceAreWrittenTogether: if the place cannot be written, nothing is. A kill rarely comes just between the two.
func TestRowsAndPlaceAreWrittenTogether(t *testing.T) {
	t.Parallel()
	db, err := open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TRIGGER broken BEFORE UPDATE ON place BEGIN SELECT RAISE(ABORT, 'broken'); END`); err != nil {
		t.Fatal(err)
	}
	batch, err := read(bufio.NewReader(strings.NewReader(told("1", "stock", "pear", 1, `,"changes":[{"kind":"put","key":"free","value":1}]`))))
	if err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context(), db, batch); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Fatal(err)
	}
	ask(t, questions(db), "/stock", `{}`)
	if _, err := db.Exec(`DROP TRIGGER broken`); err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context(), db, batch); err != nil {
		t.Fatal(err)
	}
	ask(t, questions(db), "/stock", `{"pear":1}`)
}
