# SPDX-License-Identifier: MIT OR Apache-2.0
"""A tenant that takes all the time there is, on every thread, and those beside it."""

import contextlib
import time
import unittest

from load import Load, expect
from mayfly_server import Server, tenant

THREADS = 2


class Neighbours(unittest.TestCase):
    def test_while_one_tenant_spins_on_all_loops_no_other_loses_a_request(self):
        # Longer than the test takes, whatever the machine: the end of the server ends them.
        noisy = tenant("noisy", "/noisy", "spin", limits={"cpu_ms": 60_000, "wall_ms": 60_000})
        with Server([noisy, tenant("quiet", "/quiet", "hello")], threads=THREADS, admin={}) as server, contextlib.ExitStack() as stack:
            self.assertEqual(server.get("/noisy").status, 200)
            spinning = [stack.enter_context(server.connect()) for _ in range(8 * THREADS)]
            for connection in spinning:
                connection.send_request("GET", "/noisy/spin")
            # All run, and none on a loop any more.
            server.await_that(lambda: server.tenant_status("noisy")["in_flight"] == len(spinning), "they do not all spin")
            with Load(server, expect("/quiet", 200, b"Hello World!")) as quiet, Load(server, expect("/", 200)) as vanilla:
                self.await_requests(quiet, vanilla, 500)
            self.assertEqual(server.tenant_status("noisy")["in_flight"], len(spinning))
            status = server.tenant_status("quiet")
            self.assertEqual((status["errors"], status["requests"]), ({}, quiet.count))

    @staticmethod
    def await_requests(first, second, count):
        while first.count < count or second.count < count:
            time.sleep(0.01)

    def test_what_is_beyond_the_bound_is_refused_at_once(self):
        # All requests arrive before the first is over, on a busy machine, too.
        limits = {"cpu_ms": 60_000, "wall_ms": 8000, "concurrent_requests": 4}
        noisy = tenant("noisy", "/noisy", "spin", limits=limits)
        with Server([noisy, tenant("quiet", "/quiet", "hello")], threads=THREADS) as server, contextlib.ExitStack() as stack:
            self.assertEqual(server.get("/noisy").status, 200)
            spinning = [stack.enter_context(server.connect()) for _ in range(32)]
            for connection in spinning:
                connection.send_request("GET", "/noisy/spin")
            answers = [connection.receive() for connection in spinning]
            self.assertEqual(sorted({answer.status for answer in answers}), [429, 504])
            self.assertEqual(len([answer for answer in answers if answer.status == 504]), 4)


if __name__ == "__main__":
    unittest.main()
