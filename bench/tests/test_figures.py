# SPDX-License-Identifier: MIT OR Apache-2.0
"""Figures are computed and judged right."""

import os
import subprocess
import sys
import unittest

from mayfly_bench import bars, comparison, cpu_time
from mayfly_bench.cpu_time import CpuTimes
from mayfly_bench.wrk import Load

from . import fixtures


class Medians(unittest.TestCase):
    def test_one_bad_round_does_not_move_a_figure_but_its_errors_count(self) -> None:
        good, bad = fixtures.sample(100, 9), comparison.Round(5, 90, 900, 900, 900, 900, 900, 7, 80.0)
        entry = comparison.entry("vanilla", Load(1, 1), [good, bad, good])
        self.assertEqual((entry["rps"], entry["cpu_us"], entry["errors"]), (100, 9, 7))
        self.assertEqual(len(entry["rounds"]), 3)

    def test_threads_follow_connections_up_to_the_cores(self) -> None:
        self.assertEqual([load.threads for load in comparison.loads(4, (1, 2, 8))], [1, 2, 4])


class CpuTime(unittest.TestCase):
    def test_the_time_of_a_busy_process_is_seen(self) -> None:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            before = cpu_time.of(busy.pid)
            deadline = os.times().elapsed + 10
            while cpu_time.of(busy.pid).since(before) < 50_000_000:
                self.assertLess(os.times().elapsed, deadline)
        finally:
            busy.kill()
            busy.wait()

    def test_a_thread_that_started_meanwhile_counts_from_zero(self) -> None:
        self.assertEqual(CpuTimes({1: 150, 2: 30}).since(CpuTimes({1: 100})), 80)

    def test_the_time_of_descendants_counts_while_they_run_and_after_they_were_waited_for(self) -> None:
        spin = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(flush=True); input()"
        middle = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}]); print(flush=True); input()"
        command = [sys.executable, "-c", middle]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
            started = CpuTimes(cpu_time.of_threads(parent.pid))
            for _ in ("it runs", "it has ended"):
                parent.stdout.readline()
                seen = cpu_time.of(parent.pid)
                self.assertGreater(seen.descendants_ns, 180_000_000)
                self.assertGreater(seen.since(started), 180_000_000)
                parent.stdin.write(b"\n")
                parent.stdin.flush()

    def test_a_descendant_that_takes_its_time_with_it_is_no_negative_time(self) -> None:
        self.assertEqual(CpuTimes({1: 10}, 5).since(CpuTimes({1: 0}, 9)), 10)

    def test_an_ended_process_has_no_threads(self) -> None:
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.assertEqual(cpu_time.of(ended.pid), CpuTimes({}, 0))


class Bars(unittest.TestCase):
    def test_every_aim_of_a_good_run_is_met(self) -> None:
        self.assertEqual([bar["name"] for bar in fixtures.report()["bars"] if not bar["met"]], [])

    def test_each_aim_can_be_missed(self) -> None:
        spoiled = {
            "micro.ioctls_per_request": {"ioctls_per_request": 2.0},
            "micro.exits_per_request": {"exits_per_request": 2},
            "micro.call_reset_us - micro.floor_us": {"call_reset_us": 21.3},
            "micro.reset_ns_per_page / micro.memcpy_ns_per_page": {"reset_ns_per_page": 50.0},
            "micro.fork_us / micro.create_vm_us": {"fork_us": 601.0},
            "micro.worker_private_kib": {"worker_private_kib": 97},
        }
        for key, change in spoiled.items():
            with self.subTest(key):
                self.assertEqual(self._missed(micro=change), [key])

    def test_another_system_call_misses_the_first_aim(self) -> None:
        self.assertEqual(self._missed(micro={"other_syscalls": {"madvise": 1}}), ["micro.ioctls_per_request"])

    def test_the_watchdog_s_ticks_are_no_part_of_a_request(self) -> None:
        self.assertEqual(self._missed(micro={"background_syscalls": {"clock_nanosleep": 100}}), [])

    def test_costly_or_slow_sandboxing_is_missed(self) -> None:
        report = fixtures.report()
        for entry in report["wrk"]:
            if entry["route"] == "sandboxed":
                entry["rounds"] = [round_ | {"cpu_us": 33.0, "rps": 32_000} for round_ in entry["rounds"]]
        missed = [bar["key"] for bar in bars.judge(report, "kvm") if not bar["met"]]
        self.assertEqual(len(missed), 2)
        self.assertTrue(all(key.startswith(("wrk", "(wrk")) for key in missed))

    def test_a_machine_that_slows_down_during_the_run_does_not_change_a_comparison(self) -> None:
        report = fixtures.report()
        for entry in report["wrk"]:
            entry["rounds"] = [round_ | {"rps": round_["rps"] / slower} for round_, slower in zip(entry["rounds"], (1, 3))]
        self.assertEqual(bars.throughput_ratio(report), bars.throughput_ratio(fixtures.report()))

    def test_the_floor_of_each_round_is_what_that_round_is_held_against(self) -> None:
        report = fixtures.report()
        for entry in report["wrk"]:
            slowed = [round_ | {"cpu_us": round_["cpu_us"] * 2, "floor_us": 40.0} for round_ in entry["rounds"][1:]]
            entry["rounds"] = entry["rounds"][:1] + slowed
        figure = {bar["key"]: bar["measured"] for bar in bars.judge(report, "kvm")}
        self.assertEqual([value for key, value in figure.items() if key.startswith("(wrk")], [1.0])

    def test_what_was_not_measured_is_not_met(self) -> None:
        report = fixtures.report() | {"wrk": []}
        del report["tenancy"], report["runtimes"]
        unmeasured = [bar for bar in bars.judge(report, "kvm") if bar["measured"] is None]
        self.assertEqual(len(unmeasured), 2 + 6 + 14)
        self.assertFalse(any(bar["met"] for bar in unmeasured))

    def _missed(self, micro: dict) -> list[str]:
        report = fixtures.report()
        report["micro"] |= micro
        return [bar["key"] for bar in bars.judge(report, "kvm") if not bar["met"]]


class ProcessBars(unittest.TestCase):
    def test_every_aim_of_a_good_run_is_met(self) -> None:
        self.assertEqual(_missed(fixtures.part("process")), [])

    def test_each_aim_of_the_micro_benchmarks_can_be_missed(self) -> None:
        for key, change in {
            "micro.ioctls_per_request": {"ioctls_per_request": 1.0},
            "micro.call_reset_us - micro.floor_us": {"call_reset_us": 5.6},
            "micro.fork_us": {"fork_us": 251.0},
            "micro.worker_served_total_kib": {"worker_served_total_kib": 193.0},
        }.items():
            with self.subTest(key):
                part = fixtures.part("process")
                part["micro"] |= change
                self.assertEqual(_missed(part), [key])

    def test_another_system_call_misses_the_first_aim(self) -> None:
        part = fixtures.part("process")
        part["micro"]["other_syscalls"] = {"futex": 1}
        self.assertEqual(_missed(part), ["micro.ioctls_per_request"])

    def test_slow_or_costly_sandboxing_is_missed(self) -> None:
        for (connections, pinned), change, named in (
            ((1, True), {"rps": 71_900}, "requests/s sandboxed / vanilla, c1 pinned"),
            ((8, False), {"rps": 65_900}, "requests/s sandboxed / vanilla, c8"),
            ((1, True), {"cpu_us": 16.6}, "server CPU that the sandbox adds, c1 pinned, with the stubs', µs"),
        ):
            with self.subTest(named):
                part = fixtures.part("process")
                entry = comparison.find(part["wrk"], "sandboxed", connections, pinned)
                entry["rounds"] = [round_ | change for round_ in entry["rounds"]]
                self.assertEqual([bar["name"] for bar in bars.judge(part, "process") if not bar["met"]], [named])

    def test_each_aim_of_tenants_and_runtimes_can_be_missed(self) -> None:
        for name, value in {"round_robin_1000_over_1": 0.69, "noisy_neighbour_p99_ms": 1.21, "reload_failures": 1}.items():
            part = fixtures.part("process")
            part["tenancy"][name] = value
            self.assertEqual(_missed(part), [f"tenancy.{name}"])
        for name, mode, value in (
            ("deno", "sdk", 0.51), ("node", "sdk", 0.49), ("deno", "server", 0.29), ("node", "server", 0.16), ("rust", "server", 0.37),
        ):  # fmt: skip
            for change in ({"relative": value}, {"errors": 1}):
                part = fixtures.part("process")
                part["runtimes"][name][mode] |= change
                self.assertEqual(_missed(part), [f"runtimes.{name}.{mode}.relative"])

    def test_what_was_not_measured_is_not_met(self) -> None:
        part = fixtures.part("process") | {"wrk": []}
        del part["tenancy"], part["runtimes"]
        part["micro"]["worker_served_total_kib"] = None
        self.assertEqual(sum(bar["measured"] is None for bar in bars.judge(part, "process")), 3 + 3 + 5 + 1)


class Rounds(unittest.TestCase):
    def test_each_engine_and_its_floor_are_next_to_vanilla_and_the_order_turns(self) -> None:
        self.assertEqual(comparison.steps(["kvm"], 0), [("kvm", False), ("kvm", True), ("vanilla", False)])
        both = [("kvm", False), ("kvm", True), ("vanilla", False), ("process", True), ("process", False)]
        self.assertEqual(comparison.steps(["kvm", "process"], 0), both)
        self.assertEqual(comparison.steps(["kvm", "process"], 1), both[::-1])


def _missed(part: dict) -> list[str]:
    return [bar["key"] for bar in bars.judge(part, "process") if not bar["met"]]
