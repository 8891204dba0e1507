# SPDX-License-Identifier: MIT OR Apache-2.0
"""The server's life: tenants that boot slowly, and the end."""

import contextlib
import http.client
import signal
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

    def test_requests_in_work_are_answered_when_the_server_is_told_to_end(self):
        # They run elsewhere than on their loops, for less than the server waits, also on a slow machine: `spin` goes by
        # the clock.
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000})
        with Server([faults], admin={}) as server, contextlib.ExitStack() as connections:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            clients = [connections.enter_context(server.connect()) for _ in range(4)]
            for client in clients:
                client.send_request("GET", "/faults/spin?200")
            server.await_that(
                lambda: server.tenant_status("faults")["in_flight"] == len(clients)
                or server.tenant_status("faults")["requests"] > len(clients),
                "the requests do not begin",
            )
            server.signal(signal.SIGTERM)
            for client in clients:
                response = client.receive()
                self.assertEqual((response.status, response.header("connection")), (200, "close"))
            server.await_log("shutdown begins; requests in progress continue")

    def test_a_server_without_descriptors_says_what_to_do_and_goes_on(self):
        hellos = [tenant(f"hello{number}", f"/{number}", "hello") for number in range(40)]
        config = {"max_workers": 1000, "boot_at_start": 0}
        with Server(hellos, threads=2, config=config, launcher=("prlimit", "--nofile=128:128"), admin={}) as server:
            found = {}
            for number in range(len(hellos)):
                # Where no descriptor is left, a connection may be closed without an answer.
                with contextlib.suppress(ConnectionError, http.client.HTTPException):
                    response = server.get(f"/{number}")
                    found.setdefault(response.status, []).append(number)
            self.assertIn(200, found, found)
            self.assertLessEqual(set(found), {200, 503}, found)
            server.await_log("LimitNOFILE")
            self.assertTrue(server.is_running())
            first = found[200][0]
            server.await_that(lambda: server.get(f"/{first}").status == 200, "a tenant with a worker is served")

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
