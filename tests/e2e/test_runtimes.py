# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs of other runtimes, as unmodified HTTP servers and by the SDK, reset and kept: the tenants of runtimes.json.

One runtime alone: `python3 -m unittest tests.e2e.test_runtimes.Python`; in one mode alone: `-k test_sdk` or `-k
test_server`. A runtime that is not built, or not installed, fails.
"""

import concurrent.futures
import contextlib
import json
import re
import sys
import time
import unittest
from pathlib import Path

# Where the other tests find it by themselves, which discovery starts beside it.
sys.path.insert(0, str(Path(__file__).parent))

from mayfly_server import REPOSITORY, Connection, Server  # noqa: E402

FILE = REPOSITORY / "drogon-plugin/server/runtimes.json"
HELLO = b"Hello World!"
# What a runtime may take to start on a loaded machine; its own limit is above that.
BOOT_S = 120
CLIENTS = 8
BODIES = {"client_max_body_size": "8M", "client_max_memory_body_size": "8M"}


def tenants_file():
    """runtimes.json, whose comments have lines of their own."""
    return json.loads(re.sub(r"^\s*//.*$", "", FILE.read_text(), flags=re.MULTILINE))


def await_boot(server, host):
    """The first response of a tenant that is not "still booting"."""
    deadline = time.monotonic() + BOOT_S
    while True:
        with contextlib.closing(Connection("127.0.0.1", server.port, timeout=BOOT_S)) as connection:
            response = connection.fetch("GET", "/", host=host)
        if b"still booting" not in response.body or time.monotonic() > deadline:
            return response
        time.sleep(0.05)


class Runtime(unittest.TestCase):
    """What any of them does. A `case_…`, which takes the tenant's host, becomes a test for each of a runtime's modes.
    The class itself has no tests, and nor has `Sample`.
    """

    name = None
    # Hosts with programs that name no length in an answer to HEAD.
    silent_about_length = ()
    file = None

    def __init_subclass__(cls, modes=(), **more):
        super().__init_subclass__(**more)
        for case in [name for name in dir(cls) if name.startswith("case_")]:
            for mode in modes:
                cls._add(case.removeprefix("case_"), getattr(cls, case), mode)

    @classmethod
    def _add(cls, words, case, mode):
        def test(self):
            case(self, self.name if mode == "server" else f"{self.name}-{mode}")

        if mode in getattr(case, "modes", (mode,)):
            setattr(cls, f"test_{mode}_{words}", test)

    @classmethod
    def setUpClass(cls):
        file = cls.file or tenants_file()
        of_runtime = re.compile(rf"{cls.name}(-sdk)?(-kept)?")
        tenants = [{**tenant, "boot": "start"} for tenant in file["tenants"] if of_runtime.fullmatch(tenant["name"])]
        for program in {tenant["program"] for tenant in tenants}:
            if not (REPOSITORY / program).exists():
                todo = "install it" if program.startswith("/") else "run `make tenants`"
                raise AssertionError(f"{cls.name}: {program} is missing: {todo}")
        config = {"root": str(REPOSITORY), **{key: file[key] for key in ("defaults", "groups")}}
        cls.server = cls.enterClassContext(Server(tenants, threads=2, config=config, app=BODIES))
        cls.booted = {}

    def ready(self, host):
        """Waits until the tenant answers; fails with its reason if it does not boot."""
        if host not in self.booted:
            self.booted[host] = await_boot(self.server, host)
        response = self.booted[host]
        self.assertEqual((response.status, response.body), (200, HELLO), f"{host}\n{self.server.log()[-4000:]}")

    @contextlib.contextmanager
    def connected(self, host):
        """A kept-alive connection for requests to a tenant that has booted."""
        self.ready(host)
        with self.server.connect() as connection:
            yield Client(connection, host)

    def assert_hello(self, response):
        self.assertEqual((response.status, response.body), (200, HELLO))
        self.assertEqual(response.header("content-length"), "12")
        self.assertRegex(response.header("content-type"), "^text/plain")

    def at_once(self, host, client):
        """What `client(connection, number)` returns for each of some clients at once."""
        self.ready(host)

        def run(number):
            with self.server.connect() as connection:
                return client(Client(connection, host), number)

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
            return list(clients.map(run, range(CLIENTS)))

    def case_says_hello_over_one_connection_many_times(self, host):
        with self.connected(host) as client:
            for number in range(100):
                self.assert_hello(client.get(f"/prefix/{number}?x={number}" if number % 2 else "/"))

    def case_answers_head_with_the_length_and_without_a_body(self, host):
        with self.connected(host) as client:
            for _ in range(3):
                response = client.fetch("HEAD", "/")
                self.assertEqual((response.status, response.body), (200, b""))
                length = None if host in self.silent_about_length else "12"
                self.assertEqual(response.header("content-length"), length)
                self.assert_hello(client.get("/"))

    def case_serves_clients_at_once(self, host):
        def client(connection, _):
            return {(response.status, response.body) for response in (connection.get("/") for _ in range(25))}

        self.assertEqual(self.at_once(host, client), [{(200, HELLO)}] * CLIENTS)


def only(*modes):
    """Marks a case of some modes alone."""

    def mark(case):
        case.modes = modes
        return case

    return mark


class Client:
    """A connection that asks one host."""

    def __init__(self, connection, host):
        self._connection, self._host = connection, host

    def fetch(self, method, path, body=None, headers=()):
        return self._connection.fetch(method, path, body, headers, self._host)

    def get(self, path):
        return self.fetch("GET", path)

    def json(self, path, method="GET", body=None, headers=()):
        response = self.fetch(method, path, body, headers)
        assert response.status == 200, response
        return response.json()

    def json_of_chunks(self, path, parts):
        headers = {"host": self._host, "transfer-encoding": "chunked"}
        self._connection.request("POST", path, iter(parts), headers, encode_chunked=True)
        response = self._connection.receive()
        assert response.status == 200, response
        return response.json()


class Sample(Runtime):
    """What our own samples do: those with the routes /echo, /random, /count, /exit and, as servers, /stream."""

    def case_is_given_all_of_a_request(self, host):
        with self.connected(host) as client:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for body in ("", "x", "h\u00e4llo\n\x00" * 1000):
                    headers = [("x-test", "a, b"), ("content-type", "text/plain"), ("x-empty", "")]
                    seen = client.json("/prefix/echo?a=b%20c&d", method, body.encode(), headers)
                    self.assertEqual((seen["method"], seen["path"], seen["query"]), (method, "/prefix/echo", "a=b%20c&d"))
                    self.assertEqual(seen["body"], body)
                    given = {name: seen["headers"].get(name) for name in ("host", "x-test", "content-type", "x-empty")}
                    self.assertEqual(given, {"host": host, "x-test": "a, b", "content-type": "text/plain", "x-empty": ""})

    def case_is_given_a_body_that_came_in_chunks(self, host):
        with self.connected(host) as client:
            for _ in range(3):
                seen = client.json_of_chunks("/echo", [b"one", b"two" * 9000, b"three"])
                self.assertEqual((seen["method"], seen["body"]), ("POST", "one" + "two" * 9000 + "three"))
                self.assert_hello(client.get("/"))

    def case_takes_and_gives_a_mebibyte(self, host):
        text = "0123456789abcd\u00e4" * (1 << 16)
        self.assertEqual(len(text.encode()), 1 << 20)
        with self.connected(host) as client:
            for _ in range(3):
                response = client.fetch("POST", "/echo", text.encode())
                self.assertEqual(response.status, 200, response.body[:500])
                self.assertTrue(response.json()["body"] == text)
                self.assert_hello(client.get("/"))

    @only("server")
    def case_streams(self, host):
        with self.connected(host) as client:
            for _ in range(5):
                response = client.get("/stream")
                self.assertEqual((response.status, response.body), (200, b"one\ntwo\nthree\n"))
                self.assertRegex(response.header("content-type"), "^text/plain")

    def assert_fresh(self, pages):
        for page in pages:
            self.assertTrue(0 <= page["random"] < 1, page)
            self.assertRegex(page["uuid"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
            self.assertLess(abs(page["now"] - time.time() * 1000), 60_000, page)
        for key in ("random", "uuid"):
            self.assertEqual(len({page[key] for page in pages}), len(pages), key)

    def case_draws_fresh_random_numbers_in_every_request(self, host):
        for tenant in (host, f"{host}-kept"):
            with self.subTest(tenant), self.connected(tenant) as client:
                self.assert_fresh([client.json("/random") for _ in range(20)])

    def case_draws_fresh_random_numbers_for_clients_at_once(self, host):
        pages = self.at_once(host, lambda client, _: [client.json("/random") for _ in range(10)])
        self.assert_fresh([page for of_client in pages for page in of_client])

    def case_sees_time_go_on(self, host):
        with self.connected(host) as client:
            seen = []
            for _ in range(5):
                before = int(time.time() * 1000)
                now = client.json("/random")["now"]
                # Runtimes round as they please.
                self.assertTrue(before - 2 <= now <= time.time() * 1000 + 2, (before, now))
                seen.append(now)
                time.sleep(0.01)
            self.assertEqual(seen, sorted(set(seen)))

    def case_starts_every_request_from_the_same_state(self, host):
        with self.connected(host) as client:
            self.assertEqual({client.json("/count")["count"] for _ in range(20)}, {1})
        self.assertEqual(self.at_once(host, lambda client, _: {client.json("/count")["count"] for _ in range(10)}), [{1}] * CLIENTS)

    def case_counts_on_if_it_is_kept(self, host):
        # A connection is of one loop, which has one worker.
        with self.connected(f"{host}-kept") as client:
            first = client.json("/count")["count"]
            self.assertEqual([client.json("/count")["count"] for _ in range(20)], list(range(first + 1, first + 21)))
            self.assert_hello(client.get("/"))

    def case_that_exits_is_a_502_and_the_next_request_is_served(self, host):
        with self.connected(host) as client:
            for _ in range(3):
                self.assertEqual(client.get("/exit").status, 502)
                self.assert_hello(client.get("/"))
                self.assertEqual(client.json("/count")["count"], 1)

    def case_that_exits_and_is_kept_starts_anew(self, host):
        with self.connected(f"{host}-kept") as client:
            client.json("/count")
            self.assertEqual(client.get("/exit").status, 502)
            self.assertEqual([client.json("/count")["count"] for _ in range(3)], [1, 2, 3])

    def case_gives_each_client_its_own_response(self, host):
        def client(connection, number):
            for i in range(25):
                mark = f"{number}-{i}"
                seen = connection.json(f"/{mark}/echo?{mark}", "POST", mark.encode() * 100, [("x-mark", mark)])
                if {seen["path"], seen["query"], seen["headers"]["x-mark"], seen["body"]} != {f"/{mark}/echo", mark, mark * 100}:
                    return f"{mark}: {seen}"
                if i % CLIENTS == number and connection.get("/exit").status != 502:
                    return f"{mark}: it did not exit"
            return None

        for tenant in (host, f"{host}-kept"):
            with self.subTest(tenant):
                self.assertEqual([wrong for wrong in self.at_once(tenant, client) if wrong], [])


BOTH = ("server", "sdk")


class Deno(Sample, modes=BOTH):
    name = "deno"


class Node(Sample, modes=BOTH):
    name = "node"
    silent_about_length = ("node",)


class Python(Sample, modes=BOTH):
    name = "python"


class Go(Sample, modes=("server",)):
    name = "go"


class Rust(Sample, modes=BOTH):
    name = "rust"


class C(Runtime, modes=("server",)):
    """lighttpd, which serves a directory."""

    name = "c"

    def case_has_its_own_statuses_and_headers(self, host):
        with self.connected(host) as client:
            for _ in range(3):
                self.assertEqual(client.get("/none").status, 404)
                page = client.get("/index.html")
                self.assertEqual((page.status, page.body), (200, HELLO))
                self.assertEqual(page.header("content-type"), "text/html")
                part = client.fetch("GET", "/", headers=[("range", "bytes=6-10")])
                self.assertEqual((part.status, part.body), (206, b"World"))
                self.assertEqual(part.header("content-range"), "bytes 6-10/12")
                same = client.fetch("GET", "/", headers=[("if-none-match", page.header("etag"))])
                self.assertEqual((same.status, same.body), (304, b""))

    def case_serves_on_if_it_is_kept(self, host):
        with self.connected(f"{host}-kept") as client:
            for _ in range(50):
                self.assert_hello(client.get("/"))
                self.assertEqual(client.get("/none").status, 404)

    def assert_hello(self, response):
        self.assertEqual((response.status, response.body, response.header("content-type")), (200, HELLO, "text/html"))
        self.assertEqual(response.header("content-length"), "12")

    def case_says_hello_over_one_connection_many_times(self, host):
        with self.connected(host) as client:
            for number in range(100):
                self.assert_hello(client.get(f"/?x={number}"))


class AsItIs(unittest.TestCase):
    """The file as users use it: the plugin's tenants_file, with programs that boot at their first call."""

    def test_every_tenant_boots_when_it_is_called(self):
        plugin = {"name": "mayfly::SandboxPlugin", "config": {"tenants_file": str(FILE.relative_to(REPOSITORY))}}
        app = {"number_of_threads": 2, "document_root": "build/public", "upload_path": "build/uploads"}
        with Server(file={"app": app, "plugins": [plugin]}) as server:
            for tenant in tenants_file()["tenants"]:
                with self.subTest(tenant["name"]):
                    response = await_boot(server, tenant["hosts"][0])
                    self.assertEqual((response.status, response.body), (200, HELLO))


class Missing(unittest.TestCase):
    def test_a_runtime_that_is_not_there_fails_and_says_what_to_do(self):
        for program, todo in (("build/tenants/none/none", "run `make tenants`"), ("/usr/bin/none", "install it")):
            file = {"defaults": {}, "groups": {}, "tenants": [{"name": "none", "hosts": ["none"], "program": program}]}
            kind = type("None_", (Runtime,), {"name": "none", "file": file})
            with self.assertRaisesRegex(AssertionError, f"none: {program} is missing: {todo}"):
                kind.setUpClass()


if __name__ == "__main__":
    unittest.main()
