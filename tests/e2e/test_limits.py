# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every limit: what the client gets, the line in the log that names tenant and limit, and the counter.

The programs are those of tenants/faults; each case has a tenant of its own, so that its counters are.
"""

import contextlib
import unittest

from mayfly_server import Server, tenant

# The limit's name, its value, what is asked for, and what comes of it: status, and `error` in the answer, log and
# counter.
ANSWERED = {
    "cpu_ms": ({"cpu_ms": 50}, "loop", 504, "cpu-limit"),
    # The request after it is to end within it, on a busy machine, too.
    "wall_ms": ({"wall_ms": 2000, "cpu_ms": 60_000}, "loop", 504, "wall-limit"),
    "memory_mib": ({"memory_mib": 2, "cpu_ms": 10_000}, "touch?8", 507, "memory-limit"),
    "response_kib": ({"response_kib": 16}, "body?20000", 502, "response-too-large"),
    "request_kib": ({"request_kib": 16}, "ok", 413, "request-too-large"),
}
# The limit's name, its value, what is asked for: the program goes on, and the request with it.
BORNE = {
    "descriptors": ({"descriptors": 8}, "alloc-descriptors"),
    "threads": ({"threads": 1}, "alloc-thread"),
    "mappings": ({"mappings": 64}, "alloc-maps"),
}
BOOT = {
    "boot_ms": ({"boot_ms": 100}, "boot:loop"),
    "boot_memory_mib": ({"boot_memory_mib": 2, "boot_ms": 10_000}, "boot:alloc-mmap"),
}
LARGE = b"x" * 20_000


class Limits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        def faults(name, limits, **more):
            return tenant(name, f"/{name}", "faults", limits=limits, **more)

        # What leaves its loop has the lowest priority; these have to run into their limits on a busy machine, too.
        on_the_loop = {"inline_budget_us": 1_000_000}
        tenants = [faults(name, {**on_the_loop, **case[0]}) for name, case in {**ANSWERED, **BORNE}.items()]
        tenants += [faults(name, limits, args=[boot]) for name, (limits, boot) in BOOT.items()]
        tenants += [
            faults("log", {"log_bytes_per_second": 1000}),
            # All of a crowd arrive before the first are over, on a busy machine, too.
            faults("concurrent", {"concurrent_requests": 2, "cpu_ms": 60_000, "wall_ms": 5000}),
            faults("crowd", {"concurrent_requests": 1000, "cpu_ms": 60_000, "wall_ms": 5000}),
            faults("inline", {"inline_budget_us": 100, "cpu_ms": 60_000}),
            tenant("hello", "/hello"),
        ]
        # Rooms for 16 unfinished requests, of which one tenant has 8 at most.
        cls.server = cls.enterClassContext(Server(tenants, admin={}, config={"overflow_threads": 1}))

    def errors(self, name):
        return self.server.tenant_status(name)["errors"]

    def test_limits_that_end_a_request(self):
        for name, (_, asked, status, error) in ANSWERED.items():
            with self.subTest(name):
                response = self.server.fetch("POST", f"/{name}/{asked}", LARGE if name == "request_kib" else b"")
                self.assertEqual(response.status, status, response.body)
                answer = response.json()
                self.assertEqual(answer["error"], error)
                self.server.await_log(rf"mayfly::request: .*tenant={name} request={answer['request_id']} error=\"{error}\"")
                self.assertEqual(self.errors(name), {error: 1})
                metrics = self.server.operate("GET", "metrics").body.decode()
                self.assertIn(f'mayfly_tenant_failures_total{{tenant="{name}",error="{error}"}} 1\n', metrics)
                # And the tenant goes on.
                self.assertEqual(self.server.get(f"/{name}/ok").status, 200)

    def test_limits_that_a_program_bears(self):
        for name, (_, asked) in BORNE.items():
            with self.subTest(name):
                response = self.server.get(f"/{name}/{asked}")
                self.assertEqual(response.status, 200, response.body)
                self.server.await_log(rf"mayfly::request: .*tenant={name} request=\w+ limit=\"{name}\"")
                status = self.server.tenant_status(name)
                self.assertEqual(set(status["limit_hits"]), {name})
                self.assertGreater(status["limit_hits"][name], 0)
                self.assertEqual(status["errors"], {})
                # The next request has the whole limit again.
                self.assertEqual(self.server.get(f"/{name}/{asked}").body, response.body)

    def test_limits_on_the_boot(self):
        for name in BOOT:
            with self.subTest(name):
                response = self.server.await_boot(f"/{name}/ok")
                self.assertEqual((response.status, response.header("retry-after")), (503, "1"))
                self.server.await_log(rf"mayfly::server: .*tenant={name}")
                self.assertEqual(self.server.tenant_status(name)["state"], "failed")
                self.assertGreater(self.errors(name)["unavailable"], 0)

    def test_the_log_limit(self):
        for _ in range(5):
            self.assertEqual(self.server.get("/log/print-lines?100").status, 200)
        self.server.await_log(r"tenant=log.*log_bytes_per_second|log_bytes_per_second.*tenant=log|dropped.*tenant=log")
        self.assertGreater(self.server.tenant_status("log")["dropped_log_lines"], 0)
        self.assertLess(self.server.log().count("tenant=log"), 200)

    def test_the_inline_budget(self):
        before = self.server.tenant_status("inline")["parked"]
        self.assertEqual(self.server.get("/inline/spin?20").status, 200)
        self.assertEqual(self.server.tenant_status("inline")["parked"], before + 1)

    def crowd(self, name, count):
        """So many endless requests at once: the first answers, which are refusals, and then all."""
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self.server.connect()) for _ in range(count)]
            for connection in connections:
                connection.send_request("GET", f"/{name}/loop")
            # Meanwhile others are served.
            self.assertEqual(self.server.get("/hello").status, 200)
            return [connection.receive() for connection in connections]

    def test_requests_at_a_time(self):
        self.server.get("/concurrent/ok")
        answers = self.crowd("concurrent", 12)
        refused = [answer for answer in answers if answer.status == 429]
        self.assertEqual(len(refused), 10)
        for answer in refused:
            self.assertEqual(answer.json()["error"], "too-many-requests")
            self.assertEqual(answer.header("retry-after"), "1")
        # Not a line for each: a loop that refuses requests does not wait for the log.
        self.server.await_log(r"mayfly::request: .*tenant=concurrent request=\w+ error=\"too-many-requests\"")
        self.assertEqual({answer.status for answer in answers}, {429, 504})
        self.assertEqual(self.errors("concurrent"), {"too-many-requests": 10, "wall-limit": 2})
        self.assertEqual(self.server.get("/concurrent/ok").status, 200)

    def test_unfinished_requests_of_all(self):
        self.server.get("/crowd/ok")
        answers = self.crowd("crowd", 24)
        refused = [answer for answer in answers if answer.status == 503]
        self.assertGreater(len(refused), 0)
        self.assertEqual({answer.json()["error"] for answer in refused}, {"overloaded"})
        self.assertEqual({answer.status for answer in answers}, {503, 504})
        self.assertEqual(self.errors("crowd")["overloaded"], len(refused))
        self.assertEqual(self.server.get("/crowd/ok").status, 200)


if __name__ == "__main__":
    unittest.main()
