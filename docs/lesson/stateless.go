// Command stateless counts as a stateless service does, for docs/lesson.md: any copy of it takes any request.
//
//	stateless ADDRESS FILE
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// inMemory is the count of this copy.
var inMemory atomic.Int64

// inStore counts in a store that all copies share, a file in place of a database: it reads the count, adds, writes it back.
func inStore(store string, by int) (n int) {
	f, err := os.OpenFile(store, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fscan(f, &n) // an empty one is a count of 0
	if n += by; by > 0 {
		<-time.After(time.Millisecond) // so far away is the database
		if _, err := f.WriteAt(fmt.Appendf(nil, "%10d", n), 0); err != nil {
			log.Fatal(err)
		}
	}
	return n
}

func main() {
	http.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, inMemory.Load()) })
	http.HandleFunc("POST /memory", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, inMemory.Add(1)) })
	http.HandleFunc("GET /store", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, inStore(os.Args[2], 0)) })
	http.HandleFunc("POST /store", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, inStore(os.Args[2], 1)) })
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
