# SPDX-License-Identifier: MIT OR Apache-2.0
"""What one request leaves behind, no other may see."""

import concurrent.futures
import re
import time
import unittest

from mayfly_server import Server, tenant


class Isolation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One thread, so that requests meet the same worker.
        cls.server = cls.enterClassContext(Server([tenant("faults", "/faults")], threads=1))

    def state(self):
        """The inventory of state that a request can change, as a request finds it."""
        response = self.server.get("/faults/state")
        self.assertEqual(response.status, 200)
        return response.body.decode()

    def test_a_request_finds_the_state_of_the_snapshot(self):
        entries = self.server.get("/faults/states").body.decode().split()
        self.assertGreater(len(entries), 20)
        pristine = self.state()
        for entry in [*entries, "all"]:
            with self.subTest(entry):
                self.server.get(f"/faults/dirty-{entry}")
                self.assertEqual(self.state(), pristine)

    def test_a_request_that_fails_leaves_nothing_behind(self):
        pristine = self.state()
        for behaviour in ("null", "exit", "stack-overflow", "header-crlf-value", "syscalls-wild", "maps-wild"):
            with self.subTest(behaviour):
                self.server.get(f"/faults/{behaviour}")
                self.assertEqual(self.state(), pristine)

    def test_no_two_requests_share_random_numbers(self):
        seen = {}
        for _ in range(50):
            for line in self.server.get("/faults/random").body.decode().splitlines():
                label, value = line.split()
                self.assertNotIn(value, seen, f"{label} and {seen.get(value)}")
                self.assertNotEqual(set(value), {"0"}, label)
                seen[value] = label
        self.assertEqual(set(seen.values()), {"entropy", "at-random", "getrandom"})

    def test_no_two_clients_share_random_numbers(self):
        def client(_):
            with self.server.connect() as connection:
                return [connection.fetch("GET", "/faults/random").body for _ in range(20)]

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            answers = [answer for client_answers in clients.map(client, range(8)) for answer in client_answers]
        values = [value for answer in answers for value in re.findall(rb"[0-9a-f]{32,}", answer)]
        self.assertEqual(len(set(values)), len(values))

    def test_time_goes_on(self):
        def clocks():
            text = self.server.get("/faults/time").body.decode()
            return {label: float(value) for label, value in re.findall(r"(\S+) 0 (\d+\.\d+)", text)}

        before = clocks()
        self.assertEqual(set(before), {"library-realtime", "library-monotonic", "call-realtime", "call-monotonic"})
        time.sleep(0.05)
        for label, after in clocks().items():
            self.assertGreaterEqual(after - before[label], 0.05, label)
        self.assertLess(abs(before["call-realtime"] - time.time()), 60)


class KeptState(unittest.TestCase):
    def test_a_tenant_that_is_not_ephemeral_keeps_its_state(self):
        # One thread: each has a worker of its own.
        with Server([tenant("faults", "/faults", ephemeral=False)], threads=1, admin={}) as server:
            server.await_workers("faults", 1)

            def data():
                return re.search(r"^data (\S+)$", server.get("/faults/state").body.decode(), re.MULTILINE).group(1)

            at_boot = data()
            self.assertEqual(server.get("/faults/dirty-data").status, 200)
            kept = data()
            self.assertNotEqual(kept, at_boot)
            self.assertEqual(data(), kept)
            # Until a crash, which ends the worker.
            self.assertEqual(server.get("/faults/null").status, 502)
            self.assertEqual(data(), at_boot)


if __name__ == "__main__":
    unittest.main()
