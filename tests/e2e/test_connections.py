# SPDX-License-Identifier: MIT OR Apache-2.0
"""Connections: kept alive, pipelined, many at once."""

import concurrent.futures
import unittest

from mayfly_server import Server, tenant


def statuses(answer):
    """The status of each response, found by its length: what was read must be exactly some responses."""
    found = []
    while answer:
        head, separator, rest = answer.partition(b"\r\n\r\n")
        assert separator, answer
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 "), lines[0]
        found.append(int(lines[0].split()[1]))
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        answer = rest[int(headers.get(b"content-length", b"0")) :]
    return found


class Connections(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(
            Server(
                [
                    tenant("hello", "/hello"),
                    tenant("echo", "/echo"),
                    tenant("faults", "/faults"),
                    # Used by one test only: requests of clients that have disconnected count as the tenant's requests
                    # in work.
                    tenant("left", "/left", "echo"),
                ],
                threads=3,
            )
        )

    def test_a_connection_serves_many_requests(self):
        with self.server.connect() as connection:
            for i in range(200):
                self.assertEqual(connection.fetch("GET", "/hello").body, b"Hello World!")
                self.assertEqual(connection.fetch("GET", f"/echo?{i}").echoed()["query"], str(i))
                self.assertEqual(connection.fetch("GET", "/").status, 200)

    def test_a_failed_request_leaves_the_connection_usable(self):
        with self.server.connect() as connection:
            for path in ("/faults/exit", "/faults/null", "/nowhere", "/faults/header-crlf-value"):
                self.assertGreaterEqual(connection.fetch("GET", path).status, 404)
                self.assertEqual(connection.fetch("GET", "/hello").body, b"Hello World!")

    def test_pipelined_requests_are_answered_in_order(self):
        paths = ["/hello", "/", "/faults/null", "/echo", "/nowhere", "/faults/ok", "/faults/exit", "/hello"]
        requests = "".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n" for path in paths)
        last = "GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = self.server.raw((requests + last).encode())
        self.assertEqual(statuses(answer), [200, 200, 502, 200, 404, 200, 502, 200, 200])

    def test_a_response_without_a_body_is_just_that(self):
        paths = [f"/faults/status?{status}" for status in (204, 304, 205)] + ["/hello"]
        requests = "".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n" for path in paths)
        last = "HEAD /hello HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = self.server.raw((requests + last).encode())
        # The response to HEAD announces a body that does not come.
        answer = answer.replace(b"Hello World!HTTP", b"HTTP")
        self.assertEqual(answer.count(b"HTTP/1.1 "), 6)
        self.assertEqual(answer.count(b"Hello World!"), 0)

    def test_http_1_0_is_answered_and_closed(self):
        answer = self.server.raw(b"GET /hello HTTP/1.0\r\n\r\n")
        self.assertTrue(answer.endswith(b"Hello World!"), answer)

    def test_a_request_that_never_ends_holds_up_nobody(self):
        with self.server.socket() as half:
            half.sendall(b"GET /hello HTTP/1.1\r\nhost:")
            self.assertEqual(self.server.get("/hello").status, 200)

    def test_a_client_that_leaves_holds_up_nobody(self):
        for _ in range(50):
            with self.server.socket() as connection:
                connection.sendall(b"GET /left HTTP/1.1\r\nhost: x\r\n\r\n" * 5)
        self.assertEqual(self.server.get("/hello").status, 200)
        self.server.await_that(lambda: self.server.get("/left").status == 200, "the tenant has too much to do")

    def test_every_client_gets_its_own_response(self):
        def client(number):
            with self.server.connect() as connection:
                for i in range(60):
                    mark = f"{number}-{i}"
                    request = connection.fetch("POST", f"/echo/{mark}?{mark}", mark.encode(), [("x-mark", mark)]).echoed()
                    marks = {request["path"][6:], request["query"], request["body"]}
                    marks |= {header["value"] for header in request["headers"] if header["name"] == "x-mark"}
                    if marks != {mark}:
                        return f"{mark}: {request}"
                    if i % 10 == number % 10 and connection.fetch("GET", "/faults/ud2").status != 502:
                        return f"{mark}: faults"
            return None

        with concurrent.futures.ThreadPoolExecutor(16) as clients:
            self.assertEqual([wrong for wrong in clients.map(client, range(16)) if wrong], [])


if __name__ == "__main__":
    unittest.main()
