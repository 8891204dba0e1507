# SPDX-License-Identifier: MIT OR Apache-2.0
"""The table of http_cases.py, for all that answers requests; and what becomes of tenants' responses on their way."""

import gzip
import json
import re
import socket
import subprocess
import threading
import time
import unittest

from http_cases import CASES
from mayfly_server import REPOSITORY, TIMEOUT_S, Server, free_port, tenant
from test_responses import Reader

MAYFLY = REPOSITORY / "build/bin/mayfly"
GO = {
    "name": "go", "path": "/go", "program": str(REPOSITORY / "build/tenants/go/bin/server"), "args": ["8000"],
    "serve": "connections", "limits": {"boot_ms": 60_000},
}  # fmt: skip
APP = {"client_max_body_size": "1M"}


# Less than the 30 s after which `mayfly run` closes an idle connection: a case is not closed by that.
ANSWER_S = 20


class Client:
    """A connection that knows the responses it has read."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self._reader = Reader(self._socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, data):
        self._socket.sendall(data)

    def next(self, head=False):
        """The next final response: status, fields by name, body."""
        while True:
            status, headers, body = self._reader.next(head)
            if status >= 200:
                return status, {name.decode().lower(): value.decode("latin1") for name, value in headers}, body

    def await_continue(self):
        status, _, _ = self._reader.next()
        assert status == 100, status

    def is_closed(self):
        """Whether the server has closed, or closes, the connection; sending anything before that is an error."""
        try:
            rest = self._reader._buffer + self._socket.recv(1 << 16)
        except ConnectionResetError:
            return True
        assert rest == b"", rest
        return True


class Table:
    """The cases; `path` and `host` are those of the receiver."""

    path = "/echo"
    is_tenant = True
    is_run = False

    def echoed(self, body):
        """What the tenant has seen: the request with its fields by name, values joined."""
        request = json.loads(body)
        fields = {}
        for header in request["headers"]:
            value = header["value"]
            fields[header["name"]] = f"{fields[header['name']]}, {value}" if header["name"] in fields else value
        return {**fields, "method": request["method"], "query": request["query"], "body": request["body"]}

    def check(self, case):
        parts = [case.sends] if isinstance(case.sends, str) else case.sends
        parts = [part.replace("/T", self.path).replace("HOST", "x").encode("latin1") for part in parts]
        answers, closes = case.answers, case.closes
        if self.is_run and case.run is not None:
            answers, closes = case.run, False
        methods = re.findall(rb"^([A-Z]+) [^ \r\n]* HTTP/1\.\d\r$", b"".join(parts), re.MULTILINE)
        with Client(self.port) as client:
            for number, part in enumerate(parts):
                if number:
                    client.await_continue()
                client.send(part)
            for number, answer in enumerate(answers):
                status, headers, body = client.next()
                allowed = answer if isinstance(answer, set) else {answer}
                if not self.is_tenant and 200 in allowed and methods[number : number + 1] == [b"POST"]:
                    allowed = {405}  # Drogon's own route here takes only GET: the request has reached it.
                self.assertIn(status, allowed, f"{number}: {body}")
            if closes:
                # Some of hyper's own refusals do not say that they are the last.
                self.assertTrue(self.is_run or headers.get("connection", "").lower() == "close", headers)
                client.is_closed()
            else:
                client.send(b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % self.path.encode())
                self.assertEqual(client.next()[0], 200)
                client.is_closed()
        if self.is_tenant and (case.sees or case.sees_no):
            seen = self.echoed(body)
            expected = {name: value.replace("HOST", "x") for name, value in case.sees.items()}
            self.assertEqual({name: seen.get(name) for name in expected}, expected)
            self.assertEqual([name for name in case.sees_no if name in seen], [])

    def test_every_case(self):
        for case in CASES:
            with self.subTest(case.name, rfc=case.rfc):
                try:
                    self.check(case)
                except TimeoutError as error:
                    raise AssertionError("no answer, or no end, in time") from error


class WithServer(unittest.TestCase):
    app = {}

    @classmethod
    def setUpClass(cls):
        tenants = [tenant("echo", "/echo"), GO]
        cls.server = cls.enterClassContext(Server(tenants, threads=1, app={**APP, **cls.app}))
        cls.port = cls.server.port
        for path in ("/echo", "/go/echo"):
            cls.server.await_that(lambda p=path: cls.server.get(p).status == 200, f"{path} is not ready")


class Vanilla(Table, WithServer):
    path = "/"
    is_tenant = False


class Sdk(Table, WithServer):
    pass


class Streamed(Table, WithServer):
    """As Sdk, where Drogon hands on bodies before they are complete."""

    app = {"enable_request_stream": True}


class Connections(Table, WithServer):
    path = "/go/echo"

    def echoed(self, body):
        request = json.loads(body)
        return {**request["headers"], "method": request["method"], "query": request["query"], "body": request["body"]}


class Run:
    """`mayfly run` with these tenants."""

    def __init__(self, tenants, directory):
        file = directory / "tenants.json"
        file.write_text(json.dumps({"tenants": tenants}))
        self.port = free_port()
        self._log = open(directory / "log", "wb")
        command = [MAYFLY, "run", "--config", file, "--listen", f"127.0.0.1:{self.port}", "--threads", "1"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self):
        deadline = time.monotonic() + TIMEOUT_S
        while self.status() != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError("`mayfly run` does not serve")
            time.sleep(0.02)
        return self

    def status(self):
        try:
            with Client(self.port) as client:
                client.send(b"GET /echo HTTP/1.1\r\nhost: echo\r\n\r\n")
                return client.next()[0]
        except OSError:
            return None

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._log.close()


class WithRun(Table, unittest.TestCase):
    is_run = True

    @classmethod
    def setUpClass(cls):
        cls.port = cls.enterClassContext(Run([tenant("echo", "/echo")], directory(cls))).port


def directory(cls):
    import tempfile
    from pathlib import Path

    return Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))


TENANTS_BY_HOST = [
    tenant("hello", hosts=["hello"]),
    tenant("echo", hosts=["echo"]),
]


class WhoIsAsked(unittest.TestCase):
    def check(self, port):
        with Client(port) as client:
            client.send(b"GET http://hello/ HTTP/1.1\r\nhost: echo\r\n\r\n")
            self.assertEqual(client.next()[2], b"Hello World!")
            client.send(b"GET http://echo/?x HTTP/1.1\r\nhost: hello\r\n\r\n")
            _, _, body = client.next()
            self.assertIn(b'{"name":"host","value":"echo"}', body)
            self.assertNotIn(b'"value":"hello"', body)

    def test_the_plugin_goes_by_the_target(self):
        with Server(TENANTS_BY_HOST) as server:
            for host in ("hello", "echo"):
                server.await_that(lambda h=host: server.get("/", host=h).status == 200, host)
            self.check(server.port)

    def test_run_goes_by_the_target(self):
        with Run(TENANTS_BY_HOST, directory(type(self))) as running:
            self.check(running.port)


def raw(status_line, fields, body):
    """A request for this very answer, for the tenant `listens`."""
    answer = f"{status_line}\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body
    return b"POST /raw HTTP/1.1\r\nhost: listens\r\ncontent-length: %d\r\n" % len(answer), answer


class OnTheWay(unittest.TestCase):
    """What Drogon does to tenants' answers, and one client's to another's."""

    @classmethod
    def setUpClass(cls):
        listens = tenant("listens", hosts=["listens"], args=["epoll"], serve="connections")
        # Goes on elsewhere, so that the loop is free, and is sent from there.
        listens["limits"] = {"inline_budget_us": 50, "concurrent_requests": 200}
        tenants = [listens, tenant("faults", "/faults"), tenant("hello", "/hello")]
        # One loop: all connections share what Drogon has for a loop.
        cls.server = cls.enterClassContext(Server(tenants, threads=1))
        for path, host in (("/", "listens"), ("/faults/ok", None), ("/hello", None)):
            cls.server.await_that(lambda p=path, h=host: cls.server.get(p, host=h).status == 200, f"{path} is not ready")

    def client(self):
        return self.enterContext(Client(self.server.port))

    def test_a_body_goes_out_as_the_tenant_made_it(self):
        body = b"All work and no play makes Jack a dull boy.\n" * 100
        fields = 'etag: "strong"\r\ncache-control: no-transform\r\n'
        client = self.client()
        for kind in ("text/plain", "text/html; charset=utf-8", "application/json", "x", None):
            for status, range_ in (("200 OK", ""), ("206 Partial Content", "content-range: bytes 0-4399/9000\r\n")):
                for accepted in ("gzip", "gzip;q=0, identity", "br, gzip, deflate", "*", "identity"):
                    with self.subTest(kind=kind, status=status, accepted=accepted):
                        type_ = f"content-type: {kind}\r\n" if kind else ""
                        head, answer = raw(f"HTTP/1.1 {status}", fields + range_ + type_, body)
                        client.send(head + f"accept-encoding: {accepted}\r\n\r\n".encode() + answer)
                        got, headers, received = client.next()
                        self.assertEqual((got, received), (int(status[:3]), body))
                        self.assertEqual((headers["etag"], headers.get("content-type")), ('"strong"', kind))
                        self.assertNotIn("content-encoding", headers)
        client.send(b"GET /faults/body?100000 HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip, br\r\n\r\n")
        self.assertEqual(client.next()[2], b"x" * 100_000)

    def test_what_the_tenant_has_compressed_stays_so(self):
        packed = gzip.compress(b"All work and no play makes Jack a dull boy.\n" * 1000, mtime=0)
        head, answer = raw("HTTP/1.1 200 OK", "content-type: text/plain\r\ncontent-encoding: gzip\r\nvary: accept-encoding\r\n", packed)
        client = self.client()
        client.send(head + b"\r\n" + answer)
        _, headers, received = client.next()
        self.assertEqual((headers["content-encoding"], headers["vary"], received), ("gzip", "accept-encoding", packed))

    def test_cookies_of_one_name_all_arrive_in_their_order(self):
        cookies = ["a=1; Path=/x; Max-Age=5", "b=x=y", "a=2; Path=/y; HttpOnly", "bare", "a=1; Path=/x; Max-Age=5"]
        head, answer = raw("HTTP/1.1 200 OK", "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies), b"x")
        response = self.server.raw(head + b"connection: close\r\n\r\n" + answer)
        lines = response.split(b"\r\n\r\n")[0].decode().split("\r\n")
        received = [line.partition(": ")[2] for line in lines if line.lower().startswith("set-cookie:")]
        self.assertEqual(received, cookies)

    SLOW = b"GET /sleep?200 HTTP/1.1\r\nhost: listens\r\n\r\n"
    NOWHERE = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n%s\r\n"
    HELLO = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n"

    def test_a_not_found_page_is_not_shared_with_those_who_close(self):
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        for other in (b"connection: close\r\n", upgrade):
            with self.subTest(other):
                client = self.client()
                # The page waits behind an answer that takes a while; meanwhile, others ask for theirs.
                client.send(self.SLOW + self.NOWHERE % b"" + self.HELLO * 2)
                time.sleep(0.05)
                for _ in range(3):
                    another = self.client()
                    another.send(self.NOWHERE % other)
                    self.assertEqual(another.next()[0], 404)
                self.assertEqual([client.next()[0] for _ in range(4)], [200, 404, 200, 200])

    def test_not_found_pages_of_a_pipeline_that_closes_all_arrive(self):
        for _ in range(20):
            client = self.client()
            client.send(self.NOWHERE % b"" * 5 + self.HELLO + self.NOWHERE % b"connection: close\r\n")
            self.assertEqual([client.next()[0] for _ in range(7)], [404] * 5 + [200, 404])
            client.is_closed()

    def test_neighbours_of_those_who_close_get_all_their_answers(self):
        ended = threading.Event()

        def disturb():
            while not ended.is_set():
                with Client(self.server.port) as client:
                    client.send(self.NOWHERE % b"connection: close\r\n")
                    client.next()

        threads = [threading.Thread(target=disturb) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            client = self.client()
            for _ in range(30):
                client.send((self.NOWHERE % b"" + self.HELLO) * 50)
                self.assertEqual([client.next()[0] for _ in range(100)], [404, 200] * 50)
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def test_a_refusal_waits_for_the_answers_before_it(self):
        client = self.client()
        client.send(self.SLOW + self.HELLO + b"GET /hello HTTP/1.1\r\nhost : x\r\n\r\n" + self.HELLO)
        self.assertEqual([client.next()[0] for _ in range(3)], [200, 200, 400])
        client.is_closed()

    def test_a_refusal_says_what_is_wrong(self):
        status, headers, body = (client := self.client()).send(b"GET /hello HTTP/1.1\r\nhost : x\r\n\r\n") or client.next()
        self.assertEqual((status, headers["content-type"]), (400, "application/json"))
        self.assertEqual(json.loads(body)["error"], "bad-request")
        self.assertIn("RFC 9112, 5.1", json.loads(body)["reason"])

    def test_a_request_may_come_in_pieces(self):
        whole = b"POST /faults/ok HTTP/1.1\r\nhost: x\r\ncookie: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n"
        client = self.client()
        for step in (1, 3, 10):
            for at in range(0, len(whole), step):
                client.send(whole[at : at + step])
                time.sleep(0.0005)
            self.assertEqual(client.next()[0], 200)

    def test_the_log_says_what_stands_before_drogon(self):
        self.server.await_log(r"requests are checked and completed before they are parsed framework=\S*Drogon 1\.")


if __name__ == "__main__":
    unittest.main()
