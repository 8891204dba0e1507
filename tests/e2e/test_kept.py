# SPDX-License-Identifier: MIT OR Apache-2.0
"""State in a fixed number of workers, with several event loops: who logs in stays logged in."""

import concurrent.futures
import contextlib
import tempfile
import threading
import time
import unittest
from pathlib import Path

from mayfly_server import Server, digest, tenant

KEY = "a key"
LOOPS = 4
LIBRARIES = [{"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr"}]

# An application whose sessions live in its memory, on threads, as an admin site in development has them.
SITE = """
import http.server, secrets
sessions = {}
class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, text, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def do_POST(self):
        name = self.rfile.read(int(self.headers["Content-Length"])).decode()
        session = secrets.token_hex(8)
        sessions[session] = [name, 0]
        self.answer(200, "welcome", ("Set-Cookie", f"sessionid={session}; HttpOnly"))
    def do_GET(self):
        found = sessions.get((self.headers["Cookie"] or "").removeprefix("sessionid="))
        if found is None:
            return self.answer(401, "who are you?")
        found[1] += 1
        self.answer(200, f"{found[0]} {found[1]}")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8000), Site).serve_forever()
"""


def visits(**more):
    return tenant("visits", "/visits", ephemeral=False, **more)


def number(response):
    """The number of a visit."""
    assert response.status == 200, response
    return int(response.body.split()[1])


@contextlib.contextmanager
def connections(server, count):
    """As many kept-alive connections. Drogon spreads them over its loops."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


class OneWorker(unittest.TestCase):
    def test_a_session_in_the_programs_memory_is_found_from_every_loop(self):
        directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (directory / "site.py").write_text(SITE)
        site = tenant(
            "site", "/", serve="connections", port=8000, boot="start", args=["-B", "/own/site.py"], ephemeral=False,
            workers=1, mounts=[*LIBRARIES, {"host": str(directory), "at": "/own"}], warm_up=[{"path": "/", "times": 3}],
        ) | {"program": "/usr/bin/python3"}  # fmt: skip
        with Server([site], threads=LOOPS) as server, connections(server, 4 * LOOPS) as opened:
            self.assertEqual(server.await_boot("/").status, 401)
            cookies = {}
            for name, connection in zip(("anna", "bert", "cleo"), opened, strict=False):
                cookies[name] = connection.fetch("POST", "/login", name.encode()).header("set-cookie").split(";")[0]
            self.assertEqual(len(set(cookies.values())), 3)
            for round, connection in enumerate(opened, 1):
                for name, cookie in cookies.items():
                    response = connection.fetch("GET", "/", headers=[("cookie", cookie)])
                    self.assertEqual((response.status, response.body), (200, f"{name} {round}".encode()))

    def test_requests_of_all_loops_are_counted_once_also_over_reloads(self):
        with (
            Server([visits(workers=1)], threads=LOOPS, admin={"key_sha256": digest(KEY)}) as server,
            connections(server, 8) as opened,
        ):
            server.await_workers("visits", 1, KEY)
            done = threading.Event()

            def reload():
                while not done.is_set():
                    answer = server.operate("POST", "tenants/visits/reload", key=KEY)
                    self.assertEqual(answer.status, 200)
                    time.sleep(0.02)

            def client(connection):
                return [number(connection.fetch("GET", "/visits")) for _ in range(200)]

            with concurrent.futures.ThreadPoolExecutor(9) as threads:
                reloading = threads.submit(reload)
                found = [found for numbers in threads.map(client, opened) for found in numbers]
                done.set()
                reloading.result()
            self.assertEqual(sorted(found), list(range(1, 8 * 200 + 1)))
            status = server.tenant_status("visits", KEY)
            self.assertEqual((status["errors"], status["workers"]), ({}, {"number": 1, "idle": 1, "waiting": 0}))
            metrics = server.operate("GET", "metrics", key=KEY).body.decode()
            for line in ("workers", "idle_workers"):
                self.assertIn(f'mayfly_tenant_{line}{{tenant="visits"}} 1\n', metrics)
            self.assertIn('mayfly_tenant_waiting_requests{tenant="visits"} 0\n', metrics)

    def test_while_one_request_takes_its_time_others_wait_and_no_loop_does(self):
        faults = {"ephemeral": False, "workers": 1, "limits": {"cpu_ms": 20_000, "wall_ms": 60_000}}
        tenants = [tenant("faults", "/faults", **faults), tenant("hello", "/hello")]
        with Server(tenants, threads=1, admin={}) as server, connections(server, 6) as opened:
            server.await_workers("faults", 1)
            server.await_workers("hello", 1)
            waiting = opened[:5]
            for connection, path in zip(waiting, ["spin?4000", "ok", "exit", "ok", "ok"], strict=True):
                connection.send_request("GET", f"/faults/{path}")
                if path == "spin?4000":
                    server.await_that(lambda: server.tenant_status("faults")["in_flight"] == 1, "it does not run")
            waits = {"number": 1, "idle": 0, "waiting": 4}
            server.await_that(lambda: server.tenant_status("faults")["workers"] == waits, "they do not wait")
            # The only loop and other tenants go on.
            self.assertEqual(opened[5].fetch("GET", "/hello").status, 200)
            self.assertEqual(server.tenant_status("faults")["workers"]["idle"], 0)
            self.assertEqual([connection.receive().status for connection in waiting], [200, 200, 502, 200, 200])
            idle = {"number": 1, "idle": 1, "waiting": 0}
            server.await_that(lambda: server.tenant_status("faults")["workers"] == idle, "no worker is idle")

    def test_requests_in_line_finish_before_an_end_in_good_order(self):
        # All three take less than the server waits; on a busy machine the first is over before this test has looked.
        faults = tenant("faults", "/faults", ephemeral=False, workers=1, limits={"cpu_ms": 20_000, "wall_ms": 60_000})
        with Server([faults], threads=2, admin={}) as server, connections(server, 3) as opened:
            server.await_workers("faults", 1)
            for connection in opened:
                connection.send_request("GET", "/faults/spin?700")
            server.await_that(lambda: server.tenant_status("faults")["requests"] == 3, "they are not in work")
            server.signal(15)
            self.assertEqual([connection.receive().status for connection in opened], [200] * 3)


class Affinity(unittest.TestCase):
    CLIENTS = 12

    def test_a_client_meets_its_own_worker_by_cookie_or_header_from_every_loop(self):
        for affinity, header in {"cookie:id": ("cookie", "x=y; id={}"), "header:X-User": ("x-user", "{}")}.items():
            with (
                self.subTest(affinity),
                Server([visits(workers=3, affinity=affinity)], threads=LOOPS, admin={}) as server,
                connections(server, 2 * LOOPS) as opened,
            ):
                server.await_workers("visits", 3)
                first = self.found(opened[0], header)
                # A worker that several clients share counts all of them; each round adds the same to each worker.
                expected = first
                shares = {client: None for client in first}
                for connection in opened[1:]:
                    found = self.found(connection, header)
                    for client, visit in found.items():
                        more = visit - expected[client]
                        shares[client] = shares[client] or more
                        self.assertEqual(more, shares[client], "as many as there are clients of this worker")
                    expected = found
                self.assertGreater(len(set(first.values())), 1)
                self.assertEqual(server.tenant_status("visits")["forks"], 3)

    def found(self, connection, header):
        name, value = header
        return {
            client: number(connection.fetch("GET", "/visits", headers=[(name, value.format(client))]))
            for client in range(self.CLIENTS)
        }

    def test_a_connection_meets_its_own_worker(self):
        with (
            Server([visits(workers=16, affinity="connection")], threads=2, admin={}) as server,
            connections(server, 1) as (connection,),
        ):
            server.await_workers("visits", 16)
            self.assertEqual([number(connection.fetch("GET", "/visits")) for _ in range(10)], list(range(1, 11)))
            # Requests on connections of their own are spread.
            others = [number(server.get("/visits")) for _ in range(40)]
            self.assertGreater(others.count(1), 4)

    def test_what_cannot_be_is_refused_with_its_key(self):
        with Server([visits()], tenants_file=True, admin={}) as server:
            before = server.tenant_status("visits")["mode"]
            server.write_tenants([visits(affinity="connection")])
            server.await_log(r"tenants\[0\]\.affinity: there is no choice of workers")
            server.write_tenants([tenant("visits", "/visits", workers=2)])
            server.await_log(r"tenants\[0\]\.workers: only for a tenant that keeps state")
            self.assertEqual(server.tenant_status("visits")["mode"], before)


if __name__ == "__main__":
    unittest.main()
