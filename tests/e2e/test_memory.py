# SPDX-License-Identifier: MIT OR Apache-2.0
"""Memory of all tenants together.

A bound that the kernel would enforce by ending the server is kept, and what a request made is given back. Where this
machine lets the test make a memory cgroup (version 2 or 1), the server runs in one, and the kernel counts. Elsewhere
the same bound is `max_memory_mib`, and what the process really has is read from /proc.
"""

import contextlib
import os
import re
import threading
import time
import unittest
from pathlib import Path

from mayfly_server import TIMEOUT_S, Connection, Server, tenant

MIB = 1 << 20
BOUND = 300 * MIB
TENANTS = 24
SIZE_MIB = 40


class Cgroup:
    """A memory cgroup with a limit; None from `make` where there can be none."""

    def __init__(self, directory):
        self.directory = directory

    @classmethod
    def make(cls, limit):
        for root, mark, name in (
            (Path("/sys/fs/cgroup"), "cgroup.controllers", "memory.max"),
            (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.limit_in_bytes"),
        ):
            directory = root / f"mayfly-test-{os.getpid()}-{time.monotonic_ns()}"
            with contextlib.suppress(OSError):
                if not (root / mark).exists():
                    continue
                if mark == "cgroup.controllers":
                    (root / "cgroup.subtree_control").write_text("+memory")
                directory.mkdir()
                try:
                    (directory / name).write_text(str(limit))
                except OSError:
                    directory.rmdir()
                    continue
                return cls(directory)
        return None

    @property
    def launcher(self):
        return ("sh", "-c", f'echo $$ >{self.directory}/cgroup.procs && exec "$@"', "sh")

    def kills(self):
        """How often the kernel has ended a process of the cgroup."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                return int(re.search(r"^oom_kill (\d+)$", (self.directory / name).read_text(), re.MULTILINE).group(1))
        raise AssertionError("the cgroup does not say how often a process was ended")

    def use(self):
        """What is used and cannot be taken back, in bytes."""
        stat = dict(line.split() for line in (self.directory / "memory.stat").read_text().splitlines())
        for name, prefix in (("memory.current", ""), ("memory.usage_in_bytes", "total_")):
            with contextlib.suppress(OSError):
                files = int(stat[prefix + "inactive_file"]) + int(stat[prefix + "active_file"])
                return int((self.directory / name).read_text()) - files
        raise AssertionError("the cgroup does not say what is used")

    def remove(self):
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self.directory.rmdir()
            except OSError:
                # The server's last pages and threads take a moment.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def process_use(pid):
    """What the process has of its own, without the images that are in no mapping: a lower bound of what it takes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = [re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE).group(1) for name in ("RssAnon", "VmPTE")]
    return sum(map(int, kib)) * 1024


class Load:
    """Clients that ask tenants in turn, and count what they get."""

    def __init__(self, server, paths, clients):
        self.server, self.paths, self.clients = server, paths, clients
        self.answers, self.by_path, self.reasons, self.most = {}, {}, set(), 0
        self.lock = threading.Lock()

    def run(self, seconds, use):
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(number, end)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.most = max(self.most, use())
            time.sleep(0.005)
        for thread in threads:
            thread.join()

    def _client(self, number, end):
        at = number * 7
        while time.monotonic() < end:
            path = self.paths[at % len(self.paths)]
            at += 1
            try:
                with contextlib.closing(Connection("127.0.0.1", self.server.port, timeout=90)) as connection:
                    response = connection.fetch("GET", path)
            except OSError:
                status, reason = "lost", ""
            else:
                status, reason = response.status, "" if response.status == 200 else response.json()["reason"]
            with self.lock:
                self.answers[status] = self.answers.get(status, 0) + 1
                if status == 200:
                    self.by_path[path] = self.by_path.get(path, 0) + 1
                elif status != 429:
                    self.reasons.add((status, reason))
            if status != 200:
                time.sleep(0.02)


class Memory(unittest.TestCase):
    @contextlib.contextmanager
    def bounded(self, tenants, **more):
        """A server with a memory limit, and a function that returns how much it uses."""
        cgroup = Cgroup.make(BOUND)
        launcher = cgroup.launcher if cgroup else ()
        config = {} if cgroup else {"max_memory_mib": BOUND // MIB}
        try:
            with Server(tenants, launcher=launcher, config=config, admin={}, **more) as server:
                yield server, cgroup.use if cgroup else lambda: process_use(server.pid)
                self.assertTrue(server.is_running(), server.log())
            if cgroup:
                self.assertEqual(cgroup.kills(), 0)
        finally:
            if cgroup:
                cgroup.remove()

    def figure(self, server, name, **labels):
        text = server.operate("GET", "metrics").body.decode()
        chosen = ",".join(f'{key}="{value}"' for key, value in labels.items())
        pattern = rf"^{name}(?:{{{chosen}[^}}]*}})? (\S+)$" if chosen else rf"^{name} (\S+)$"
        return float(re.search(pattern, text, re.MULTILINE).group(1))

    def hold(self, tenants, paths, *, seconds=12, clients=8):
        """Runs a load in a bounded server, and returns it; then each tenant is served again."""
        with self.bounded(tenants) as (server, use):
            load = Load(server, paths, clients)
            load.run(seconds, use)
            self.assertNotIn("lost", load.answers, server.log())
            self.assertLessEqual(set(load.answers), {200, 503}, load.reasons)
            self.assertGreater(load.answers.get(200, 0), 0, load.reasons)
            # Not the bound itself: a part of it is left alone.
            self.assertLess(load.most, BOUND, load.answers)
            for status, reason in load.reasons:
                self.assertEqual(status, 503)
                self.assertRegex(reason, "memory|booting|too many", load.reasons)
            for path in paths:
                server.await_that(lambda path=path: server.get(path).status == 200, f"{path} is served again")
            self.assertGreater(self.figure(server, "mayfly_memory_shortages_total"), 0)
            server.await_log("memory is short: idle workers are closed")
            load.closed = self.figure(server, "mayfly_memory_closed_workers_total")
            load.stopped = self.figure(server, "mayfly_memory_stopped_programs_total")
            return load

    def test_programs_of_40_mb_take_turns(self):
        def of(number):
            return tenant(f"t{number}", f"/{number}", "faults", args=[f"boot:touch={SIZE_MIB}"])

        paths = [f"/{number}/ok" for number in range(TENANTS)]
        load = self.hold([of(number) for number in range(TENANTS)], paths, seconds=40)
        self.assertGreater(load.stopped, 0)
        # More than fit at a time: no tenant has its memory for ever while another one gets none.
        self.assertGreater(len(load.by_path), BOUND // (SIZE_MIB * MIB), load.by_path)

    def test_requests_of_40_mb_are_answered_or_refused(self):
        limits = {"memory_mib": 64, "cpu_ms": 60_000, "wall_ms": 60_000}
        tenants = [tenant(f"t{number}", f"/{number}", "faults", limits=limits) for number in range(TENANTS)]
        paths = [f"/{number}/touch-hold?{SIZE_MIB}" for number in range(TENANTS)]
        load = self.hold(tenants, paths, clients=12)
        self.assertIn(503, load.answers)

    def test_idle_workers_of_40_mb_make_room(self):
        limits = {"memory_mib": 64, "work_set_kib": 65536, "cpu_ms": 60_000, "wall_ms": 60_000}
        tenants = [
            tenant(f"t{number}", f"/{number}", "faults", args=["boot:region=8"], limits=limits)
            for number in range(TENANTS)
        ]
        # A worker keeps 8 MiB between requests, with a program of 8 MiB; a few requests need more than is left.
        paths = [f"/{number}/region" for number in range(TENANTS)]
        paths += [f"/{number}/touch?{SIZE_MIB}" for number in range(0, TENANTS, 6)]
        load = self.hold(tenants, paths, seconds=20)
        self.assertGreater(load.closed, 0)

    def test_files_that_requests_write_are_within_the_bound_and_given_back(self):
        limits = {"memory_mib": 32, "cpu_ms": 60_000, "wall_ms": 60_000, "concurrent_requests": 64}
        with Server([tenant("t", "/", "faults", limits=limits)], threads=4, admin={}) as server:
            self.assertEqual(server.get("/ok").status, 200)
            before = process_use(server.pid)
            load = Load(server, ["/write-file?15"], 12)
            load.run(8, lambda: process_use(server.pid))
            self.assertEqual(set(load.answers), {200}, load.reasons)
            server.await_that(lambda: process_use(server.pid) - before < 48 * MIB, "what was written is given back")

    def test_a_work_set_that_is_too_large_to_keep_is_counted_and_logged_once(self):
        # It changes 64 pages.
        tenants = [
            tenant("small", "/small", "workset", limits={"work_set_kib": 64}),
            tenant("free", "/free", "workset"),
        ]
        with Server(tenants, admin={}) as server:
            for _ in range(3):
                self.assertEqual([server.await_boot(path).status for path in ("/small", "/free")], [200, 200])
            given_back = "mayfly_tenant_work_sets_given_back_total"
            server.await_that(lambda: self.figure(server, given_back, tenant="small") == 3, "not counted")
            self.assertEqual(self.figure(server, given_back, tenant="free"), 0)
            told = r"more memory than its worker may keep.* tenant=small request=\w+ kib=\d+"
            server.await_log(told)
            self.assertEqual(len(re.findall(told, server.log())), 1)

    def test_what_is_used_and_what_bounds_it_is_told(self):
        one = tenant("t", "/", "faults", args=["boot:touch=8"])
        with Server([one], config={"max_memory_mib": 2048}, admin={}) as server:
            self.assertEqual(server.await_boot("/ok").status, 200)
            self.assertEqual(self.figure(server, "mayfly_memory_max_bytes", of="process"), 2048 * MIB)
            used = self.figure(server, "mayfly_memory_bytes", of="process")
            self.assertGreater(used, 8 * MIB)
            self.assertLess(used, 200 * MIB)
            self.assertGreater(self.figure(server, "mayfly_memory_max_bytes", of="machine"), 0)
            self.assertGreater(self.figure(server, "mayfly_tenant_memory_bytes", tenant="t"), 8 * MIB)
            self.assertGreater(self.figure(server, "mayfly_memory_machines_bytes", kind="images"), 8 * MIB)
            self.assertEqual(self.figure(server, "mayfly_memory_short"), 0)

    def test_what_needs_more_than_there_is_says_so(self):
        small = {"max_memory_mib": 64}
        limits = {"memory_mib": 200, "boot_memory_mib": 200, "cpu_ms": 60_000, "wall_ms": 60_000}
        tenants = [
            tenant("large", "/large", "faults", args=["boot:touch=150"], limits=limits, boot="first_call"),
            tenant("t", "/t", "faults", limits=limits),
        ]
        with Server(tenants, config=small, admin={}) as server:
            self.assertEqual(server.await_boot("/t/ok").status, 200)
            response = server.get("/t/touch?150")
            self.assertEqual((response.status, response.header("retry-after")), (503, "1"), response.body)
            answer = response.json()
            self.assertEqual(answer["error"], "server-memory")
            self.assertIn("max_memory_mib", answer["reason"])
            server.await_log(rf"mayfly::request: .*tenant=t request={answer['request_id']} error=\"server-memory\"")
            self.assertGreater(self.figure(server, "mayfly_tenant_memory_refusals_total", tenant="t"), 0)
            response = server.await_boot("/large/ok")
            self.assertEqual((response.status, response.header("retry-after")), (503, "1"), response.body)
            self.assertIn("no memory left to boot", response.json()["reason"])
            # Others are served all the while.
            server.await_that(lambda: server.get("/t/ok").status == 200, "others are served")


if __name__ == "__main__":
    unittest.main()
