// SPDX-License-Identifier: MIT OR Apache-2.0

// A server for Go's net/http that counts in Redis: it knows nothing of Mayfly. Redis is REDIS=HOST:PORT; the port is
// its argument.
//
// It connects when it starts, and again when the connection is lost: after a reset that is in every request.
//
//	.../count?KEY  the new number
//	else           Hello World!
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var (
	turn       sync.Mutex
	connection net.Conn
	reader     *bufio.Reader
)

func connect() (err error) {
	if connection, err = net.DialTimeout("tcp", os.Getenv("REDIS"), 10*time.Second); err == nil {
		reader = bufio.NewReader(connection)
	}
	return err
}

func ask(command string) (string, error) {
	if connection == nil {
		if err := connect(); err != nil {
			connection = nil
			return "", err
		}
	}
	_, err := io.WriteString(connection, command)
	if err == nil {
		var line string
		if line, err = reader.ReadString('\n'); err == nil {
			return strings.TrimSpace(line[1:]), nil
		}
	}
	connection.Close()
	connection = nil
	return "", err
}

func count(response http.ResponseWriter, request *http.Request) {
	turn.Lock()
	defer turn.Unlock()
	key := request.URL.RawQuery
	command := fmt.Sprintf("*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n", len(key), key)
	answer, err := ask(command)
	if err != nil {
		answer, err = ask(command)
	}
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadGateway)
		return
	}
	io.WriteString(response, answer)
}

func main() {
	if err := connect(); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, "/count") {
			count(response, request)
			return
		}
		io.WriteString(response, "Hello World!")
	})))
}
