# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is measured of many tenants: that it is added up right, and that each failure is seen."""

import contextlib
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from mayfly_bench import bars, page, process, server, summary, tenancy
from mayfly_bench.errors import BenchError
from mayfly_bench.tenancy import neighbour, reloads, turns, words
from mayfly_bench.tenancy.result import Result

from . import fixtures


def _quiet(_: str) -> None:
    """Says nothing of what goes on."""


class WithServer(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="mayfly-bench-test-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        self.chosen = fixtures.fake_options(self.scratch)

    def server(self, tenants: dict) -> server.Server:
        """The fake server with some tenants."""
        fake = fixtures.FAKE / "bin" / "mayfly-server"
        return server.Server(fake, fixtures.FAKE / "server.json", self.scratch, self.scratch, threads=1, tenants=tenants)

    def mode(self, mode: str) -> contextlib.AbstractContextManager:
        """Has servers that start now misbehave."""
        return mock.patch.dict(os.environ, {"FAKE_SERVER": mode})


class Results(unittest.TestCase):
    def test_a_figure_is_the_median_and_the_range_is_beside_it(self) -> None:
        result = Result.median("x", [{"x": 3.0}, {"x": 1.0}, {"x": 2.0}], 4, tenants=5)
        report = result.as_report()
        self.assertEqual((result.value, report["median"], report["min"], report["max"]), (2, 2, 1, 3))
        self.assertEqual((report["failed_requests"], report["tenants"], len(report["rounds"])), (4, 5, 3))

    def test_the_rise_is_that_of_whoever_notices_more(self) -> None:
        def p99(b: int, vanilla: int) -> dict:
            return {"B": {"p99_us": b}, "vanilla": {"p99_us": vanilla}}

        rise = neighbour._rise({"quiet": p99(200, 100), "noisy": p99(700, 1_300)})
        self.assertEqual((rise["rise_ms"], rise["rise_B_ms"]), (1.2, 0.5))

    def test_the_overhead_is_that_of_the_micro_benchmarks(self) -> None:
        runs = [{"overhead_ns": overhead, "overhead_equals_ns": 1.0, "floor_us": 20.0} for overhead in (100.0, 400.0, 200.0)]
        self.assertEqual(tenancy.overhead(runs).value, 200)


class Aims(unittest.TestCase):
    def test_each_aim_can_be_missed(self) -> None:
        for name, value in {
            "round_robin_1000_over_1": 0.79, "counter_over_hello": 0.94, "overhead_ns": 300.0, "idle_tenant_kib": 8.0,
            "noisy_neighbour_p99_ms": 1.21, "reload_failures": 1,
        }.items():
            with self.subTest(name):
                report = fixtures.report()
                report["tenancy"][name] = value
                self.assertEqual(_missed(report), [f"tenancy.{name}"])

    def test_a_figure_with_failed_requests_is_missed(self) -> None:
        for name in ("round_robin_1000_over_1", "counter_over_hello", "noisy_neighbour_p99_ms"):
            with self.subTest(name):
                report = fixtures.report()
                report["tenancy_rounds"][name]["failed_requests"] = 1
                self.assertEqual(_missed(report), [f"tenancy.{name}"])

    def test_reloads_without_an_answer_prove_nothing(self) -> None:
        report = fixtures.report()
        report["tenancy_rounds"]["reload_failures"]["answers"] = 0
        self.assertEqual(_missed(report), ["tenancy.reload_failures"])


class Words(unittest.TestCase):
    def test_every_figure_has_a_row_in_every_form_of_the_report(self) -> None:
        report = fixtures.report()
        rows = words.table(report)
        self.assertEqual(len(rows), 1 + len(tenancy.FIGURES) + 1 + 2)
        for written in (summary.terminal(report), summary.markdown(report), page.render(report)):
            for row in rows:
                self.assertIn(row[0], written)

    def test_failures_are_named(self) -> None:
        report = fixtures.report()
        report["tenancy_rounds"]["counter_over_hello"]["failed_requests"] = 7
        report["tenancy_rounds"]["reload_failures"]["counts"]["mixed"] = 3
        written = str(words.table(report))
        self.assertIn("FAILED requests: 7", written)
        self.assertIn("mixed: 3", written)

    def test_a_report_without_tenants_still_renders(self) -> None:
        report = fixtures.report()
        del report["tenancy_rounds"], report["tenancy"]
        self.assertNotIn("Many tenants", page.render(report | {"bars": bars.judge(report, "kvm")}) + summary.markdown(report))


class Turns(WithServer):
    def test_tenants_are_asked_in_turn_and_one_alone_is_asked_alone(self) -> None:
        lua = Path(turns.__file__).with_name("tenants.lua")
        asked = f"""
            local asked = {{}}
            wrk = {{ format = function(_, path) return path end }}
            dofile = function() end
            number = tonumber(arg[2])
            loadfile("{lua}")()
            init({{ arg[1] }})
            for _ = 1, 6 do asked[#asked + 1] = request() end
            print(table.concat(asked, " "))
        """
        self.assertEqual(_lua(asked, "3", "0"), "/t/0 /t/1 /t/2 /t/0 /t/1 /t/2")
        self.assertEqual(_lua(asked, "3", "1"), "/t/1 /t/2 /t/0 /t/1 /t/2 /t/0")
        self.assertEqual(_lua(asked, "1", "1"), " ".join(["/t/0"] * 6))

    def test_refusals_are_counted(self) -> None:
        with self.mode("refuses"), self.server(turns.tenants(self.chosen)) as running:
            load = turns.Load(1, 1)

            def side(server: server.Server, seconds: int):
                return turns.comparison.measure(server, load, seconds, "/t/0")

            self.assertGreater(turns.compare_sides(running, "", side, side, 1, 1, _quiet).failed, 0)

    def test_wrong_pages_are_refused(self) -> None:
        with self.mode("refuses"), self.server(turns.tenants(self.chosen)) as running:
            with mock.patch("mayfly_bench.listening._START_S", 0.2), self.assertRaisesRegex(BenchError, "/t/0 answers 503"):
                turns.check_pages(running)

    def test_a_server_that_never_has_its_workers_is_an_error(self) -> None:
        with mock.patch.object(turns, "_WARM_S", 0.2), self.server(turns.tenants(self.chosen)) as running:
            with self.assertRaisesRegex(BenchError, "has 0 workers"):
                turns.wait_for_workers(running, "kvm", 1)


class Reloads(WithServer):
    def measure(self, mode: str) -> Result:
        with self.mode(mode):
            return reloads.measure(self.chosen, self.server, self.scratch, _quiet)

    def test_reloads_that_work_count_nothing(self) -> None:
        result = self.measure("")
        self.assertEqual(result.value, 0, result.more)
        self.assertGreater(result.more["answers"], 0)
        self.assertEqual(result.more["reloads"], self.chosen.tenancy.reloads)

    def test_answers_of_the_wrong_program_are_counted(self) -> None:
        self.assertGreater(self.measure("mixed").more["counts"]["mixed"], 0)

    def test_answers_of_the_last_generation_after_a_reload_are_counted(self) -> None:
        self.assertGreater(self.measure("stale").more["counts"]["stale"], 0)

    def test_reloads_that_fail_end_the_run_with_the_reason(self) -> None:
        with self.assertRaisesRegex(BenchError, "it is a stand-in"):
            self.measure("no reload")


class Neighbours(WithServer):
    def test_the_neighbour_is_called_all_the_while_and_left_when_it_has_answered(self) -> None:
        with self.server(neighbour.tenants(self.chosen)) as running:
            with neighbour.Spinner(running, 2) as spinner:
                neighbour._load(running, 1)
            answers = spinner.answers()
        self.assertEqual(set(answers), {"504"})
        self.assertGreaterEqual(answers["504"], 4)


class Processes(unittest.TestCase):
    def test_memory_and_descriptors_of_a_process_are_seen(self) -> None:
        program = "import os; held = [os.dup(0) for _ in range(50)]; memory = b'x' * (32 << 20); print(flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            memory, descriptors = process.memory_kib(child.pid), process.descriptors(child.pid)
            workers = [process.workers(child.pid, engine) for engine in ("kvm", "process")]
            family = process.tree(os.getpid())
            child.stdin.write(b"\n")
            child.stdin.flush()
        self.assertGreater(memory["private"], 32 << 10)
        self.assertGreaterEqual(memory["pss"], memory["private"])
        self.assertGreaterEqual(descriptors, 53)
        self.assertEqual(workers, [0, 0])
        self.assertEqual(family[child.pid].parent, os.getpid())

    def test_the_descriptor_limit_is_raised_as_far_as_it_goes(self) -> None:
        with mock.patch("resource.getrlimit", return_value=(1_024, 4_096)), mock.patch("resource.setrlimit") as set_to:
            tenancy.raise_descriptor_limit(20_000)
        self.assertEqual(set_to.call_args.args[1], (4_096, 4_096))


def _missed(report: dict) -> list[str]:
    return [bar["key"] for bar in bars.judge(report, "kvm") if not bar["met"]]


def _lua(program: str, *arguments: str) -> str:
    """What a Lua program prints, run by wrk, which is the Lua that there is."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-test-") as scratch:
        script = Path(scratch, "test.lua")
        listed = ", ".join(f'"{argument}"' for argument in arguments)
        script.write_text(f"arg = {{ {listed} }}\n{program}\nos.exit(0)")
        done = subprocess.run(
            ["wrk", "-t1", "-c1", "-d1s", "-s", str(script), "http://127.0.0.1:1/"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()


