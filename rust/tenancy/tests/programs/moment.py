# SPDX-License-Identifier: MIT OR Apache-2.0
"""A server that becomes ready 300 ms after it listens (or READY_MS), holds a connection, and is calm some time after its work."""

import http.server
import os
import socket
import threading
import time


class State:
    ready = False
    calm = False
    asked = 0
    restored = 0
    connection = None


def become_calm():
    """As the monitor of an event loop does: it looks every 100 ms (or LOOK_MS), and a look that follows a request is not calm."""
    seen = -1
    while True:
        State.calm = seen == State.asked
        seen = State.asked
        time.sleep(int(os.environ.get("LOOK_MS", 100)) / 1000)


def connect():
    host, port = os.environ["UPSTREAM"].rsplit(":", 1)
    State.connection = socket.create_connection((host, int(port)), timeout=5)


def use():
    try:
        State.connection.sendall(b"?")
        return 200 if State.connection.recv(1) == b"!" else 502
    except (OSError, AttributeError):
        return 502


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        calm = State.calm
        State.asked += 1
        status = 200
        if path == "/ready":
            status = 200 if State.ready else 503
        elif path == "/hang":
            threading.Event().wait()
        elif path == "/sleep":
            time.sleep(600)
        elif path == "/drop":
            self.close_connection = True
            return
        elif path == "/spin":
            while True:
                pass
        elif path == "/fail":
            status = 500
        elif path == "/drain":
            if State.connection:
                State.connection.close()
            State.connection = None
        elif path == "/restore":
            time.sleep(int(query or 0) / 1000)
            State.restored += 1
            if "UPSTREAM" in os.environ:
                connect()
        elif path == "/use":
            status = use()
        elif path == "/clock":
            return self.answer(status, str(time.monotonic_ns()).encode())
        self.answer(
            status,
            f"ready={State.ready} calm={calm} asked={State.asked} restored={State.restored}".encode(),
        )

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def become_ready():
    time.sleep(int(os.environ.get("READY_MS", 300)) / 1000)
    State.ready = True


server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
if "UPSTREAM" in os.environ:
    connect()
threading.Thread(target=become_ready, daemon=True).start()
if "MONITOR" in os.environ:
    threading.Thread(target=become_calm, daemon=True).start()
server.serve_forever()
