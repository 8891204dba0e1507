# SPDX-License-Identifier: MIT OR Apache-2.0
"""A thousand tenants in one server."""

import concurrent.futures
import time
import unittest
from pathlib import Path

from mayfly_server import Server, tenant

COUNT = 1000


def tenants(count):
    return [tenant(f"t{i}", program="hello", hosts=[f"t{i}.example"]) for i in range(count)]


def memory_kib(pid):
    """What the process has for itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


class Many(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        started = time.monotonic()
        cls.server = cls.enterClassContext(Server(tenants(COUNT), admin={}, config={"boot_at_start": 8}))
        cls.start_s = time.monotonic() - started

    def test_the_server_starts_in_seconds(self):
        self.assertLess(self.start_s, 15)

    def test_only_those_that_are_called_boot(self):
        def states():
            found = [tenant["state"] for tenant in self.server.status()["tenants"]]
            return found[:8], found[-100:]

        self.server.await_that(lambda: set(states()[0]) == {"ready"}, "the first do not boot")
        self.assertEqual(set(states()[1]), {"unbooted"})
        self.assertEqual(self.server.get("/", host=f"t{COUNT - 1}.example").body, b"Hello World!")
        self.assertEqual(states()[1].count("ready"), 1)

    def test_one_after_the_other_answers_its_first_request(self):
        def ask(numbers):
            with self.server.connect() as connection:
                return [connection.fetch("GET", "/x", host=f"t{number}.example").status for number in numbers]

        # Not the last hundred, which another test wants asleep.
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            asked = [range(start, 200, 4) for start in range(4)] * 2
            statuses = [status for found in clients.map(ask, asked) for status in found]
        self.assertEqual(set(statuses), {200})

    def test_idle_tenants_take_next_to_nothing(self):
        # Against a server with one: some MiB for a thousand.
        with Server(tenants(1)) as small, Server(tenants(COUNT), config={"boot_at_start": 1}) as large:
            self.assertLess(memory_kib(large.pid) - memory_kib(small.pid), 16 * COUNT)


if __name__ == "__main__":
    unittest.main()
