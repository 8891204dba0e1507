# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tenants that talk to a real Redis server outside their machines."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import tempfile
import time
import unittest

from mayfly_server import REPOSITORY, TENANTS, TIMEOUT_S, Server, free_port, tenant
from test_runtimes import await_boot, tenants_file

SERVER = TENANTS / "redis/redis-server"


class Redis:
    """A Redis server on a free port, from entering the context to leaving it. It keeps nothing."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="mayfly-redis-")
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": self._directory.name}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            [SERVER / "redis-server", *arguments],
            env=dict(os.environ, LD_LIBRARY_PATH=str(SERVER / "lib")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                assert self.ask("PING") == "+PONG"
                return self
            if time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError("Redis did not start")
            time.sleep(0.02)

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._directory.cleanup()

    def ask(self, command):
        """The first line of what Redis answers to a command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.makefile("r").readline().strip()

    def blocked(self):
        """How many clients wait in a command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(b"INFO clients\r\nQUIT\r\n")
            lines = connection.makefile("r").read().split("\n")
        (count,) = [line.split(":")[1] for line in lines if line.startswith("blocked_clients:")]
        return int(count)

    def tenant(self, name="redis", **more):
        env = {"REDIS": self.address}
        return tenant(name, f"/{name}", "redis", env=env, outbound=[self.address], **more)


class Outbound(unittest.TestCase):
    def setUp(self):
        self.redis = self.enterContext(Redis())

    def test_what_a_request_keeps_in_redis_the_next_one_finds(self):
        with Server([self.redis.tenant()], admin={}) as server:
            self.assertEqual(server.await_boot("/redis/get?greeting").status, 404)
            self.assertEqual(server.fetch("POST", "/redis/set?greeting", b"hello").status, 204)
            self.assertEqual(server.get("/redis/get?greeting").body, b"hello")
            self.assertEqual(self.redis.ask("GET greeting"), "$5")
            large = os.urandom(900_000)
            self.assertEqual(server.fetch("POST", "/redis/set?large", large).status, 204)
            self.assertEqual(server.get("/redis/get?large").body, large)
            self.assertEqual(server.fetch("POST", "/redis/incr?greeting", b"").status, 400)
            status = server.tenant_status("redis")
            self.assertEqual((status["connects"], status["refused_connects"]), (6, 0))
            metrics = server.operate("GET", "metrics").body.decode()
            self.assertIn('mayfly_tenant_connects_total{tenant="redis"} 6\n', metrics)

    def test_many_requests_at_once_lose_no_count(self):
        kept = self.redis.tenant("kept", ephemeral=False)
        with Server([self.redis.tenant(), kept]) as server:
            for path in ["/redis/incr?", "/kept/incr?"]:
                server.await_boot(path + "first")

            def count(_):
                with server.connect() as connection:
                    for _ in range(25):
                        for path in ["/redis/incr?all", "/kept/incr?all"]:
                            response = connection.fetch("POST", path, b"")
                            self.assertEqual(response.status, 200, response)

            with concurrent.futures.ThreadPoolExecutor(6) as threads:
                list(threads.map(count, range(6)))
            self.assertEqual(server.get("/redis/get?all").body, b"300")

    def test_requests_that_wait_hold_up_nobody(self):
        # As many of one tenant as may run at a time: on a busy machine any of them may be paused before it waits.
        waiting = 8
        with Server(
            [self.redis.tenant(limits={"wall_ms": 30_000}), tenant("hello", "/hello")],
            threads=1,
            config={"overflow_threads": 1},
        ) as server:
            server.await_boot("/redis/get?none")
            with concurrent.futures.ThreadPoolExecutor(waiting) as threads:
                answers = [threads.submit(server.get, "/redis/pop?jobs") for _ in range(waiting)]
                server.await_that(lambda: self.redis.blocked() == waiting, "not all of them wait")
                # The one loop, and the one thread behind it, are free.
                began = time.monotonic()
                for _ in range(50):
                    self.assertEqual(server.get("/hello").body, b"Hello World!")
                self.assertLess(time.monotonic() - began, 3)
                self.assertFalse(any(answer.done() for answer in answers))
                for number in range(waiting):
                    self.assertEqual(server.fetch("POST", "/redis/push?jobs", b"%d" % number).status, 200)
                bodies = [answer.result() for answer in answers]
            self.assertEqual({response.status for response in bodies}, {200})
            self.assertEqual(sorted(int(response.body) for response in bodies), list(range(waiting)))
            began = time.monotonic()
            self.assertEqual(server.get("/redis/pop?jobs").status, 404, "BLPOP's own time is over")
            self.assertGreater(time.monotonic() - began, 4.5)

    def test_descriptors_come_back(self):
        def open_files(server):
            return len(os.listdir(f"/proc/{server.pid}/fd"))

        # Its own limit for what waits in vain: on a busy machine it is too short for what is to succeed.
        short = self.redis.tenant("short", limits={"wall_ms": 200})
        with Server([self.redis.tenant(), short], threads=1) as server, server.connect() as connection:
            for path in ("/redis/get?none", "/short/get?none"):
                server.await_boot(path)
            connection.fetch("GET", "/redis/get?none")
            before = open_files(server)
            for number in range(150):
                self.assertEqual(connection.fetch("GET", "/redis/get?none").status, 404)
                if number % 15 == 0:
                    self.assertEqual(connection.fetch("GET", "/short/pop?none").status, 504, "given up while it waits")
            # A worker that was given up is closed in the background, and another one is made.
            server.await_that(lambda: open_files(server) <= before + 8, "descriptors are left")
            server.await_that(lambda: self.redis.blocked() == 0, "connections are left")

    def test_a_redis_that_comes_back_is_found_again(self):
        kept = self.redis.tenant("kept", ephemeral=False)
        with Server([self.redis.tenant(), kept], threads=1) as server:
            for name in ["redis", "kept"]:
                self.assertEqual(server.await_boot(f"/{name}/get?none").status, 404)
            self.redis.__exit__()
            for name in ["redis", "kept"]:
                response = server.get(f"/{name}/get?none")
                self.assertEqual((response.status, response.body), (502, b"Connection refused"))
            self.redis.__enter__()
            for name in ["redis", "kept"]:
                self.assertEqual(server.get(f"/{name}/get?none").status, 404)

    def test_a_tenant_reaches_its_own_list_and_nothing_else(self):
        strays = [
            tenant("none", "/none", "redis", env={"REDIS": self.redis.address}),
            tenant("far", "/far", "redis", env={"REDIS": "10.0.0.1:6379"}, outbound=[self.redis.address]),
            tenant("name", "/name", "redis", env={"REDIS": f"localhost:{self.redis.port}"}, outbound=["db.invalid:1"]),
        ]
        with Server(strays, admin={}) as server:
            for name, reason in [
                ("none", b"Connection refused"),
                ("far", b"Permission denied"),
                ("name", b"Connection refused"),
            ]:
                response = server.await_boot(f"/{name}/get?none")
                self.assertEqual((response.status, response.body), (502, reason))
            server.await_log(r"the program may not connect to 10\.0\.0\.1:6379: it is not in `outbound` tenant=far")
            self.assertEqual(server.tenant_status("far")["refused_connects"], 1)
        self.assertEqual(self.redis.ask("DBSIZE"), ":0")


class Runtimes(unittest.TestCase):
    """Unmodified HTTP servers, each on its runtime's own loop, with a connection to Redis that they made when they
    started.
    """

    PROGRAMS = {
        "python": ("/usr/bin/python3", ["/app/redis/server.py"]),
        "node": (str(TENANTS / "node/bin/node"), ["/app/redis/server.mjs"]),
        "go": (str(TENANTS / "redis/go/server"), []),
    }

    def setUp(self):
        self.redis = self.enterContext(Redis())

    def server(self, name):
        file = tenants_file()
        program, args = self.PROGRAMS[name]
        config = {"root": str(REPOSITORY), **{key: file[key] for key in ("defaults", "groups")}}
        common = {
            "group": name,
            "program": program,
            "args": [*args, "8000"],
            "mounts": [{"host": str(TENANTS / "redis"), "at": "/app/redis"}],
            "env": {"REDIS": self.redis.address},
            "outbound": [self.redis.address],
            "serve": "connections",
            "port": 8000,
        }
        tenants = [
            {**common, "name": "reset", "hosts": ["reset"], "warm_up": [{"path": "/", "times": 3}]},
            {**common, "name": "kept", "hosts": ["kept"], "ephemeral": False},
        ]
        return Server(tenants, config=config, admin={})

    def case(self, name):
        with self.server(name) as server:
            for host in ["reset", "kept"]:
                response = await_boot(server, host)
                self.assertEqual((response.status, response.body), (200, b"Hello World!"), server.log()[-3000:])
                before = server.tenant_status(host)["connects"]
                with server.connect() as connection:
                    for number in range(1, 21):
                        response = connection.fetch("GET", f"/count?{host}", host=host)
                        self.assertEqual((response.status, response.body), (200, b"%d" % number), server.log()[-3000:])
                made = server.tenant_status(host)["connects"] - before
                # One for each request, or for each worker.
                self.assertTrue(made == 20 if host == "reset" else 1 <= made < 10, f"{host}: {made}")

            def count(_):
                with server.connect() as connection:
                    for _ in range(10):
                        for host in ["reset", "kept"]:
                            self.assertEqual(connection.fetch("GET", "/count?all", host=host).status, 200)

            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                list(threads.map(count, range(4)))
            self.assertEqual(server.get("/count?all", host="kept").body, b"81")

    def test_python(self):
        self.case("python")

    def test_node(self):
        self.case("node")

    def test_go(self):
        self.case("go")


if __name__ == "__main__":
    unittest.main()
