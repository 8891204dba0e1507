// SPDX-License-Identifier: MIT OR Apache-2.0

// A server for Go's net/http, as anyone would write it: it knows nothing of Mayfly. The port is its argument.
//
//	.../random  what must differ from request to request
//	.../echo    the request as JSON
//	.../count   how many times this was asked for
//	.../lookup  the addresses of the name in the query, by Go's own resolver
//	.../exit    ends the program
//	.../stream  a response whose length is not known when it begins
//	else        Hello World!
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

var count int64

func uuid() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// A number from 0 to 1, from the operating system: math/rand would give each request the same.
func number() (float64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	bits := uint64(0)
	for _, value := range b {
		bits = bits<<8 | uint64(value)
	}
	return float64(bits>>11) / (1 << 53), err
}

func reply(w http.ResponseWriter, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

func random(w http.ResponseWriter) {
	id, err := uuid()
	value, err2 := number()
	if err != nil || err2 != nil {
		http.Error(w, "no random numbers", http.StatusInternalServerError)
		return
	}
	reply(w, map[string]any{"random": value, "uuid": id, "now": time.Now().UnixMilli()})
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	headers := map[string]string{"host": r.Host}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	reply(w, map[string]any{
		"method": r.Method, "path": r.URL.EscapedPath(), "query": r.URL.RawQuery, "headers": headers, "body": string(body),
	})
}

func lookup(w http.ResponseWriter, r *http.Request) {
	addresses, err := net.DefaultResolver.LookupHost(r.Context(), r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	reply(w, addresses)
}

func stream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain")
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		_, _ = io.WriteString(w, line)
		w.(http.Flusher).Flush()
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/random"):
		random(w)
	case strings.HasSuffix(r.URL.Path, "/echo"):
		echo(w, r)
	case strings.HasSuffix(r.URL.Path, "/lookup"):
		lookup(w, r)
	case strings.HasSuffix(r.URL.Path, "/stream"):
		stream(w)
	case strings.HasSuffix(r.URL.Path, "/count"):
		reply(w, map[string]any{"count": atomic.AddInt64(&count, 1)})
	case strings.HasSuffix(r.URL.Path, "/exit"):
		os.Exit(3)
	default:
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "Hello World!")
	}
}

func main() {
	port := "8000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(serve)))
}
