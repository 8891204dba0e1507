# SPDX-License-Identifier: MIT OR Apache-2.0
"""The server's life: tenants that boot slowly, and the end."""

import contextlib
import time
import unittest

from mayfly_server import Server, tenant


class Life(unittest.TestCase):
    def test_a_tenant_that_boots_slowly_answers_503_until_it_is_ready(self):
        slow = tenant("slow", "/slow", "faults", args=["boot:spin=7000"], limits={"boot_ms": 30_000})
        with Server([slow, tenant("hello", "/hello")]) as server:
            response = server.get("/slow/ok")
            self.assertEqual(response.status, 503)
            self.assertEqual(response.header("retry-after"), "1")
            self.assertIn("booting", response.json()["reason"])
            self.assertEqual(server.get("/hello").status, 200)
            self.assertEqual(server.await_boot("/slow/ok").body, b"ok\n")

    def test_a_server_without_tenants_serves_its_own_routes(self):
        with Server([]) as server:
            self.assertEqual(server.get("/").status, 200)
            self.assertEqual(server.get("/hello").status, 404)

    def test_a_server_that_is_stopped_ends_though_requests_run_and_wait(self):
        # Server demands of itself that it ends, and with status 0.
        limits = {"cpu_ms": 500}
        with Server([tenant("faults", "/faults", limits=limits)]) as server, contextlib.ExitStack() as connections:
            server.get("/faults/ok")
            for behaviour in ["exit"] * 8 + ["loop"] * 8 + ["exit"] * 8:
                connection = connections.enter_context(server.socket())
                connection.sendall(f"GET /faults/{behaviour} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            time.sleep(0.1)

    def test_a_server_that_is_stopped_at_once_ends(self):
        for _ in range(3):
            with Server([tenant("hello", "/hello"), tenant("faults", "/faults")]):
                pass

    def test_one_prefix_may_be_all_paths(self):
        with Server([tenant("echo", "/"), tenant("hello", "/hello")]) as server:
            self.assertEqual(server.get("/").json()["path"], "/")
            self.assertEqual(server.get("/any/where").json()["path"], "/any/where")
            self.assertEqual(server.get("/hello/").body, b"Hello World!")


if __name__ == "__main__":
    unittest.main()
