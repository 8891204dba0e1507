# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every kind of response reaches its client whole, and in its turn."""

import concurrent.futures
import itertools
import random
import threading
import unittest

from mayfly_server import Server, tenant


class Reader:
    """Reads responses from a socket, one after the other, by their lengths."""

    def __init__(self, connection):
        self._connection, self._buffer = connection, b""

    def _fill(self):
        chunk = self._connection.recv(1 << 16)
        if not chunk:
            raise AssertionError(f"the connection ended: {self._buffer[:200]!r}")
        self._buffer += chunk

    def next(self, head=False):
        """Status, headers as a list, and body of the next response."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        lines = self._buffer[:end].split(b"\r\n")
        headers = [tuple(line.split(b": ", 1)) for line in lines[1:]]
        length = 0 if head else int(dict((name.lower(), value) for name, value in headers).get(b"content-length", 0))
        while len(self._buffer) < end + 4 + length:
            self._fill()
        body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
        return int(lines[0].split()[1]), headers, body


class Responses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        limits = {"request_kib": 16 * 1024, "response_kib": 24 * 1024, "cpu_ms": 20_000, "inline_budget_us": 1_000_000}
        tenants = [
            tenant("echo", "/echo", limits=limits),
            tenant("faults", "/faults", limits=limits),
            # Each request that takes long leaves its loop after 0.1 ms.
            tenant("slow", "/slow", "faults", limits={"inline_budget_us": 100, "concurrent_requests": 200}),
            # Each ends its worker, so that the next one has to wait for another.
            tenant("fork", "/fork", "faults", limits={"concurrent_requests": 200}),
            tenant("hello", "/hello"),
        ]
        app = {"client_max_body_size": "16M", "client_max_memory_body_size": "16M"}
        # Room for all that the tests let wait.
        config = {"overflow_threads": 16}
        cls.server = cls.enterClassContext(Server(tenants, threads=2, app=app, config=config))

    def test_every_status(self):
        with self.server.socket() as connection:
            reader = Reader(connection)
            for status in range(200, 600):
                connection.sendall(f"GET /faults/status?{status} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                self.assertEqual(reader.next()[::2], (status, b""))

    def test_a_binary_body_goes_there_and_back(self):
        body = bytes(range(256)) * 64
        request = self.server.fetch("POST", "/echo", body).json()
        self.assertIn("body_base64", request)
        # And one from the program, which runs the body as machine code: mov eax, 7; ret.
        self.assertEqual(self.server.fetch("POST", "/faults/code", b"\xb8\x07\0\0\0\xc3").status, 200)

    def test_large_bodies_both_ways(self):
        text = random.Random(1).randbytes(2 << 20).hex().encode() + b"end"
        for _ in range(16):  # Every thread has a worker then.
            self.assertEqual(self.server.get("/echo").status, 200)
        received = self.server.fetch("POST", "/echo", text)
        self.assertEqual(received.status, 200, received.body[:200])
        self.assertEqual(received.json()["body"].encode(), text)
        large = self.server.get("/faults/body?8000000")
        self.assertEqual((large.status, large.body), (200, b"x" * 8_000_000))

    def test_an_empty_body_is_one_too(self):
        with self.server.socket() as connection:
            connection.sendall(b"GET /faults/header-count?0 HTTP/1.1\r\nhost: x\r\n\r\n")
            status, headers, _ = Reader(connection).next()
            self.assertEqual(status, 200)
            self.assertIn(b"content-length", [name.lower() for name, _ in headers])

    def test_head_has_the_headers_and_no_body(self):
        with self.server.socket() as connection:
            reader = Reader(connection)
            for path in ("/hello", "/echo", "/faults/body?100000", "/faults/header-count?5", "/faults/null", "/slow/work?1000000"):
                for method in ("HEAD", "GET"):
                    connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head, get = reader.next(head=True), reader.next()
                with self.subTest(path):
                    self.assertEqual(head[0], get[0])
                    lengths = [dict(headers).get(b"content-length") for _, headers, _ in (head, get)]
                    if get[2] == b"":  # An empty body may or may not be that of a GET.
                        self.assertEqual(lengths, [None, b"0"])
                    elif path not in ("/echo", "/faults/null"):  # Their bodies contain the method, or a request's id.
                        self.assertEqual(lengths[0], lengths[1])

    def test_headers_that_come_twice(self):
        request = (
            b"GET /echo HTTP/1.1\r\nhost: x\r\nx-twice: 1\r\nx-bytes: \xff\xfe\x80\r\ncookie: a=1\r\nX-Twice: 2\r\n\r\n"
        )
        with self.server.socket() as connection:
            connection.sendall(request)
            status, _, body = Reader(connection).next()
            self.assertEqual(status, 200)
            self.assertIn(b'"name":"x-twice","value":"1, 2"', body)
            self.assertIn(b'"value_base64":"//6A"', body)

    def test_a_client_that_waits_to_be_told_to_go_on_is_told(self):
        with self.server.socket() as connection:
            connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
            reader = Reader(connection)
            self.assertEqual(reader.next()[0], 100)
            connection.sendall(b"hello")
            status, _, body = reader.next()
            self.assertEqual(status, 200)
            self.assertIn(b'"body":"hello"', body)

    # Requests of every kind, whose responses differ in their status.
    KINDS = (
        ("/faults/status?{}", None),
        ("/slow/spin?2", 200),  # Leaves its loop.
        ("/fork/exit", 502),
        ("/fork/ok", 200),  # Has no worker yet.
        ("/", 200),
        ("/nowhere", 404),
        ("/slow/status?{}", None),
    )

    def pipeline(self, seed, count):
        """Sends requests without waiting for responses, and returns those responses that are not what the request's
        should be.
        """
        source = random.Random(seed)
        expected, requests = [], []
        for number in range(count):
            path, status = source.choice(self.KINDS)
            mark = 210 + number % 90
            path = path.format(mark)
            requests.append(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            expected.append((path, status or mark))
        data = b"".join(requests)
        with self.server.socket() as connection:

            def send():
                # In pieces that have nothing to do with the requests.
                cuts = sorted(source.sample(range(len(data)), 7))
                for start, end in itertools.pairwise([0, *cuts, len(data)]):
                    connection.sendall(data[start:end])

            sender = threading.Thread(target=send)
            sender.start()
            reader = Reader(connection)
            found = [reader.next() for _ in expected]
            sender.join()
        return [(wanted, got) for wanted, got in zip(expected, found) if got[0] != wanted[1]]

    def test_pipelined_requests_are_answered_in_their_order_however_long_each_takes(self):
        for seed in range(6):
            self.assertEqual(self.pipeline(seed, 60), [])

    def test_pipelines_side_by_side(self):
        with concurrent.futures.ThreadPoolExecutor(6) as clients:
            for wrong in clients.map(lambda seed: self.pipeline(seed, 40), range(100, 106)):
                self.assertEqual(wrong, [])


class Lengths(unittest.TestCase):
    """What a response without a body says of its length: what the tenant says, or nothing (RFC 9110, 8.6 and 9.3.2)."""

    # Path, method, and what the response has for a length.
    CASES = (
        ("/bare?200", "HEAD", None),
        ("/bare?200,17", "HEAD", b"17"),
        ("/bare?200,0", "HEAD", b"0"),
        ("/bare?404,10000000000", "HEAD", b"10000000000"),
        ("/chunked", "HEAD", None),
        ("/close", "HEAD", None),
        ("/bare?304", "HEAD", None),
        ("/bare?304", "GET", None),
        ("/bare?304,17", "GET", b"17"),
        ("/bare?304,17", "HEAD", b"17"),
        ("/bare?204", "GET", None),
        ("/bare?204,17", "GET", None),
        ("/bare?204,17", "HEAD", None),
        # With a body, or without one where one may be.
        ("/large?5", "GET", b"5"),
        ("/chunked", "GET", b"12"),
        ("/bare?200,0", "GET", b"0"),
        # A tenant by the SDK cannot name a length: what it gives is measured, and nothing is nothing.
        ("/faults/body?5", "HEAD", b"5"),
        ("/faults/body?0", "HEAD", None),
        ("/faults/body?0", "GET", b"0"),
        ("/faults/status?304", "GET", None),
        ("/faults/status?204", "GET", None),
        # Mayfly's own.
        ("/faults/header-crlf-value", "HEAD", "named"),
    )

    @classmethod
    def setUpClass(cls):
        listens = tenant("listens", "/", args=["epoll"], serve="connections")
        # Goes on elsewhere, and is sent from there.
        later = tenant("later", "/", "listens", hosts=["later"], args=["epoll"], serve="connections")
        later["limits"] = {"inline_budget_us": 50, "concurrent_requests": 1000}
        cls.server = cls.enterClassContext(Server([listens, later, tenant("faults", "/faults")]))
        for path, host in (("/", None), ("/", "later"), ("/faults/ok", None)):
            cls.server.await_that(lambda p=path, h=host: cls.server.get(p, host=h).status == 200, f"{path} of {host}")

    def check(self, case, response):
        path, method, expected = case
        status, headers, body = response
        named = dict(headers)
        with self.subTest(f"{method} {path}"):
            self.assertEqual(len(named), len(headers), headers)
            length = named.get(b"content-length")
            self.assertEqual("named" if expected == "named" and length else length, expected)
            self.assertNotIn(b"transfer-encoding", named)
            self.assertNotIn(b"connection", named)
            self.assertIn(b"date", named)
            if path.startswith("/bare"):
                self.assertEqual((named[b"content-type"], status), (b"text/bare", int(path[6:9])))
            if method == "GET" and status == 200:
                self.assertEqual(len(body), int(length))

    def test_one_request_after_the_other(self):
        for host in ("x", "later"):
            with self.server.socket() as connection:
                reader = Reader(connection)
                for case in self.CASES:
                    if host == "later" and case[0].startswith("/faults"):
                        continue
                    connection.sendall(f"{case[1]} {case[0]} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
                    self.check(case, reader.next(head=case[1] == "HEAD" or "304" in case[0]))

    def test_pipelined(self):
        cases = self.CASES * 4
        data = "".join(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n" for path, method, _ in cases)
        with self.server.socket() as connection:
            connection.sendall(data.encode())
            reader = Reader(connection)
            for case in cases:
                self.check(case, reader.next(head=case[1] == "HEAD" or "304" in case[0]))

    def test_connections_end_and_stay_as_they_are_asked_to(self):
        for version, asked, expected in (
            ("1.1", "connection: close\r\n", b"connection: close"),
            ("1.0", "", b"connection: close"),
        ):
            # Not 204: Drogon 1.9.13 leaves that connection open for the client to close.
            for method, path in (("HEAD", "/bare?200"), ("GET", "/bare?304"), ("GET", "/")):
                with self.subTest(f"{version} {method} {path}"):
                    answer = self.server.raw(f"{method} {path} HTTP/{version}\r\nhost: x\r\n{asked}\r\n".encode())
                    self.assertEqual(answer.lower().count(expected), 1, answer)
        with self.server.socket() as connection:
            reader = Reader(connection)
            for method, path in (("HEAD", "/bare?200"), ("GET", "/bare?304"), ("GET", "/")):
                connection.sendall(f"{method} {path} HTTP/1.0\r\nhost: x\r\nconnection: Keep-Alive\r\n\r\n".encode())
                _, headers, _ = reader.next(head=method == "HEAD" or "304" in path)
                self.assertEqual(dict(headers)[b"connection"].lower(), b"keep-alive")


if __name__ == "__main__":
    unittest.main()
