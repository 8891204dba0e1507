# SPDX-License-Identifier: MIT OR Apache-2.0
"""Figures are computed and judged right."""

import os
import subprocess
import sys
import unittest

from mayfly_bench import bars, comparison, cpu_time
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
            before = cpu_time.of_threads(busy.pid)
            deadline = os.times().elapsed + 10
            while cpu_time.used_ns(before, cpu_time.of_threads(busy.pid)) < 50_000_000:
                self.assertLess(os.times().elapsed, deadline)
        finally:
            busy.kill()
            busy.wait()

    def test_a_thread_that_started_meanwhile_counts_from_zero(self) -> None:
        self.assertEqual(cpu_time.used_ns({1: 100}, {1: 150, 2: 30}), 80)

    def test_an_ended_process_has_no_threads(self) -> None:
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.assertEqual(cpu_time.of_threads(ended.pid), {})


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
        missed = [bar["key"] for bar in bars.judge(report) if not bar["met"]]
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
        figure = {bar["key"]: bar["measured"] for bar in bars.judge(report)}
        self.assertEqual([value for key, value in figure.items() if key.startswith("(wrk")], [1.0])

    def test_what_was_not_measured_is_not_met(self) -> None:
        report = fixtures.report() | {"wrk": []}
        del report["tenancy"], report["runtimes"]
        unmeasured = [bar for bar in bars.judge(report) if bar["measured"] is None]
        self.assertEqual(len(unmeasured), 2 + 6 + 14)
        self.assertFalse(any(bar["met"] for bar in unmeasured))

    def _missed(self, micro: dict) -> list[str]:
        report = fixtures.report()
        report["micro"] |= micro
        return [bar["key"] for bar in bars.judge(report) if not bar["met"]]
