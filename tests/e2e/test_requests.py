# SPDX-License-Identifier: MIT OR Apache-2.0
"""What of a request reaches the program, and what of its response the client."""

import base64
import time
import unittest

from mayfly_server import Server, tenant

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "MOVE")


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server([tenant("echo", "/echo"), tenant("echo-deep", "/echo/deep", "echo")]))

    def echo(self, method="GET", path="/echo", body=None, headers=()):
        response = self.server.fetch(method, path, body, headers)
        self.assertEqual(response.status, 200, response.body)
        return response.json()

    @staticmethod
    def values(request, name):
        return [header["value"] for header in request["headers"] if header["name"] == name]

    def test_every_method_that_drogon_knows_is_the_programs(self):
        for method in METHODS:
            with self.subTest(method):
                if method == "HEAD":  # Answered without a body; its length tells the method.
                    length = self.server.fetch("HEAD", "/echo/0123456789").header("content-length")
                    self.assertGreater(int(length), 100)
                    continue
                for path in ("/echo", "/echo/below"):
                    self.assertEqual(self.echo(method, path)["method"], method)

    def test_the_path_comes_as_it_was_sent(self):
        for path in ("/echo", "/echo/", "/echo/a/b", "/echo/%41%2f%20x", "/echo//..//x", "/echo/*", "/echo/+?a"):
            with self.subTest(path):
                self.assertEqual(self.echo(path=path)["path"], path.partition("?")[0])

    def test_a_path_need_not_be_utf_8(self):
        answer = self.server.raw(b"GET /echo/\xe4 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        self.assertIn(b'"path_base64":"' + base64.b64encode(b"/echo/\xe4") + b'"', answer)

    def test_the_query_comes_as_it_was_sent(self):
        for query in ("a=b", "", "a=%20&b=?c", "=&&=", "x" * 4000):
            with self.subTest(query[:20]):
                self.assertEqual(self.echo(path=f"/echo?{query}")["query"], query)

    def test_a_body_comes_whole(self):
        for body in (b"", b"x", b"a\0b\xff\xfe", bytes(range(256)) * 16, b"z" * 40_000):
            with self.subTest(len(body)):
                request = self.echo("POST", "/echo", body)
                received = request["body"].encode() if "body" in request else base64.b64decode(request["body_base64"])
                self.assertEqual(received, body)

    def test_a_chunked_body_comes_whole(self):
        answer = self.server.raw(
            b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
        )
        self.assertIn(b'"body":"hello!"', answer)

    def test_headers_come_in_lower_case_with_their_values(self):
        request = self.echo(headers=[("X-Test", "Some Value"), ("x-empty", ""), ("X-LATIN", "caf\xe9")])
        self.assertEqual(self.values(request, "x-test"), ["Some Value"])
        self.assertEqual(self.values(request, "x-empty"), [""])
        (latin,) = [header for header in request["headers"] if header["name"] == "x-latin"]
        self.assertEqual(base64.b64decode(latin["value_base64"]), b"caf\xe9")

    def test_many_headers_come(self):
        sent = {f"x-{i}": str(i) for i in range(60)}
        received = {header["name"]: header["value"] for header in self.echo(headers=sent.items())["headers"]}
        self.assertEqual({name: received.get(name) for name in sent}, sent)

    def test_cookies_come_as_they_were_sent(self):
        for cookies in ("a=1; b=2=3; c=", "b=2; a=1; a=0", "bare", "a=1;b=2; =x; c=\"q;=\"", "mayfly-cookie=1"):
            with self.subTest(cookies):
                self.assertEqual(self.values(self.echo(headers=[("Cookie", cookies)]), "cookie"), [cookies])
                self.assertEqual(self.values(self.echo(headers=[("Cookie", cookies)]), "mayfly-cookie"), [])

    def test_a_request_has_the_time_and_a_number_of_its_own(self):
        first, second = self.echo(), self.echo()
        self.assertNotEqual(first["id"], second["id"])
        self.assertLess(abs(first["unix_ns"] / 1e9 - time.time()), 60)
        self.assertLess(first["unix_ns"], second["unix_ns"])
        self.assertLess(first["monotonic_ns"], second["monotonic_ns"])

    def test_the_longest_prefix_has_the_request(self):
        for path in ("/echo/deep", "/echo/deep/er", "/echo/deeper", "/echo/deep/../x"):
            with self.subTest(path):
                self.assertEqual(self.echo(path=path)["path"], path)

    def test_a_prefix_ends_at_a_slash(self):
        for path in ("/echoX", "/ech", "/echo.", "/x/echo"):
            with self.subTest(path):
                self.assertEqual(self.server.get(path).status, 404)

    def test_paths_are_told_apart_by_case(self):
        self.assertEqual(self.server.get("/ECHO").status, 404)

    def test_a_path_of_any_length_ends_nobody(self):
        # A route that is a regular expression would overflow the stack here (docs/decisions/0030).
        for path in ("/echo/" + "a" * 60_000, "/" + "a" * 60_000, "/" * 60_000, "/echo" + "/x" * 30_000):
            with self.subTest(path[:10]):
                self.assertIn(self.server.get(path).status, (200, 404, 413, 500))
        self.assertEqual(self.echo()["path"], "/echo")

    def test_a_request_for_a_websocket_is_refused(self):
        upgrade = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]
        self.assertEqual(self.server.fetch("GET", "/echo", headers=upgrade).status, 404)


if __name__ == "__main__":
    unittest.main()
