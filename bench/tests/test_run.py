# SPDX-License-Identifier: MIT OR Apache-2.0
"""A whole run with stand-ins for the programs: real wrk, real strace, real processes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from mayfly_bench import bars, cli, engines, options, pages, server, tenancy
from mayfly_bench.errors import BenchError

from . import fixtures

_RUN = Path(__file__).resolve().parents[1] / "run"


class WithScratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="mayfly-bench-test-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def server(self, mode: str = "") -> server.Server:
        """The fake server in one of its modes; the mode is read when it starts."""
        patched = mock.patch.dict(os.environ, {"FAKE_SERVER": mode})
        patched.start()
        self.addCleanup(patched.stop)
        return server.Server(
            fixtures.FAKE / "bin" / "mayfly-server", fixtures.FAKE / "server.json", self.scratch, self.scratch, threads=1
        )


class WholeRun(WithScratch):
    def test_a_short_run_writes_a_complete_report(self) -> None:
        # A stand-in has no machines to count.
        chosen = fixtures.fake_options(self.scratch)
        workers = mock.patch("mayfly_bench.process.workers", return_value=10_000)
        with workers, contextlib.redirect_stderr(io.StringIO()):
            report = cli.measure(chosen, engines.probe(chosen.cli))
        cli.write(report, self.scratch)
        written = json.loads((self.scratch / "report.json").read_text())
        self.assertLessEqual({"cpu", "kernel", "kvm", "mitigations", "drogon", "allocator"}, written["host"].keys())
        self.assertEqual(written["host"]["drogon"], "1.9.13")
        self.assertEqual(written["run"]["failures"], [])
        self.assertEqual(list(written["engines"]), ["kvm", "process"])
        # What `auto` means is also where it was when there was one engine.
        for key, value in written["engines"]["process"].items():
            self.assertEqual(written[key], value, key)
        for engine, part in written["engines"].items():
            with self.subTest(engine):
                self.check(engine, part)
        of_vanilla = [[e["rps"] for e in part["wrk"] if e["route"] == "vanilla"] for part in written["engines"].values()]
        self.assertEqual(*of_vanilla)
        for name in ("report.html", "report.md"):
            self.assertGreater((self.scratch / name).stat().st_size, 500)

    def test_a_part_that_fails_leaves_the_figures_of_the_others(self) -> None:
        chosen = fixtures.fake_options(self.scratch)
        fails = mock.patch("mayfly_bench.tenancy.measure", side_effect=BenchError("too few workers"))
        with fails, contextlib.redirect_stderr(io.StringIO()):
            report = cli.measure(chosen, engines.probe(chosen.cli))
        cli.write(report, self.scratch)
        written = json.loads((self.scratch / "report.json").read_text())
        self.assertEqual(written["run"]["failures"], ["too few workers"])
        self.assertEqual(list(written["runtimes"]), ["deno", "node", "python", "go"])
        self.assertGreater(len(written["wrk"]), 0)
        self.assertGreater((self.scratch / "report.html").stat().st_size, 500)

    def check(self, engine: str, part: dict) -> None:
        """What each engine's part has to have."""
        measured = [(entry["connections"], entry["pinned"], entry["route"]) for entry in part["wrk"]]
        loads = ((1, False), (8, False), (1, True))
        self.assertEqual(sorted(measured), sorted((*load, route) for load in loads for route in ("vanilla", "sandboxed")))
        for entry in part["wrk"]:
            self.assertEqual(entry["errors"], 0)
            self.assertEqual({round_["floor_us"] for round_ in entry["rounds"]}, {20.0 if entry["pinned"] else None})
            for key in ("rps", "cpu_us", "p50_us", "p75_us", "p90_us", "p99_us"):
                self.assertGreater(entry[key], 0)
        self.assertEqual(part["micro"]["ioctls_per_request"], {"kvm": 1, "process": 2}[engine])
        self.assertEqual(part["micro"]["worker_served_total_kib"], 140)
        self.assertEqual(len(part["bars"]), len(bars.BARS[engine]))
        self.assertEqual(list(part["runtimes"]), ["deno", "node", "python", "go"])
        self.assertEqual(tuple(part["tenancy"]), tenancy.FIGURES)
        self.assertEqual(part["tenancy"]["overhead_ns"], 150)
        self.assertEqual(part["tenancy"]["reload_failures"], 0)
        for name in ("round_robin_1000_over_1", "counter_over_hello", "noisy_neighbour_p99_ms"):
            self.assertEqual(part["tenancy_rounds"][name]["failed_requests"], 0)


class ServerLife(WithScratch):
    def test_listeners_and_thread_count_are_replaced_and_all_else_is_kept(self) -> None:
        made = server.configuration(fixtures.FAKE / "server.json", 1234, 3)
        self.assertEqual(made["listeners"], [{"address": "127.0.0.1", "port": 1234}])
        self.assertEqual(made["app"], {"number_of_threads": 3})
        self.assertEqual(made["plugins"][0]["config"]["note"], "not // a comment")

    def test_the_compared_tenant_is_there_once_for_each_engine(self) -> None:
        made = server.configuration(fixtures.FAKE / "server.json", 1, 1, engines=("kvm", "process"))["plugins"][0]["config"]
        routes = [(tenant["name"], tenant["path"], tenant.get("engine")) for tenant in made["tenants"]]
        self.assertEqual(routes, [("page-kvm", "/z", "kvm"), ("page-process", "/p", "process"), ("other", "/other", None)])
        self.assertEqual((made["engine"], made["root"]), ("kvm", "."))

    def test_a_configuration_without_the_compared_tenant_is_an_error(self) -> None:
        sample = self.scratch / "server.json"
        sample.write_text('{"plugins": [{"name": "mayfly::SandboxPlugin", "config": {}}]}')
        with self.assertRaisesRegex(BenchError, "no tenant with the path /z"):
            server.configuration(sample, 1, 1, engines=("kvm",))

    def test_a_configuration_that_cannot_be_read_is_an_error(self) -> None:
        with self.assertRaisesRegex(BenchError, "none.json"):
            server.configuration(self.scratch / "none.json", 1, 1)

    def test_the_server_is_gone_after_the_block_even_if_that_failed(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.server() as running:
            pid = running.pid
            raise ZeroDivisionError
        self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_a_server_that_ends_at_once_is_an_error_with_its_reason(self) -> None:
        with self.assertRaisesRegex(BenchError, "(?s)ended at once.*the reason why"), self.server("ends at once"):
            pass

    def test_a_missing_server_is_an_error(self) -> None:
        missing = server.Server(self.scratch / "none", fixtures.FAKE / "server.json", self.scratch, self.scratch, threads=1)
        with self.assertRaisesRegex(BenchError, "none"), missing:
            pass

    def test_unequal_routes_are_refused(self) -> None:
        modes = {"different bytes": "different bytes", "extra header": "x-mayfly", "unavailable": "no /dev/kvm"}
        for mode, named in modes.items():
            with self.subTest(mode), self.server(mode) as running:
                with self.assertRaisesRegex(BenchError, named):
                    pages.check_comparable(running.get("/"), running.get("/z"))

    def test_a_terminated_benchmark_leaves_no_server(self) -> None:
        arguments = ["--quick", "--build", str(fixtures.FAKE), "--config", str(fixtures.FAKE / "server.json")]
        program = (
            "import sys; sys.path.insert(0, sys.argv[1]); from mayfly_bench import cli; "
            "cli.check_needs = lambda chosen: None; sys.exit(cli.main(sys.argv[2:]))"
        )
        bench = subprocess.Popen(
            [sys.executable, "-c", program, str(_RUN.parent), *arguments, "--out", str(self.scratch)],
            stderr=subprocess.DEVNULL,
        )
        try:
            servers = _wait_for(lambda: _children_named(bench.pid, "mayfly-server"))
            bench.send_signal(signal.SIGTERM)
            self.assertEqual(bench.wait(20), 130)
        finally:
            bench.kill()
            bench.wait()
        # Where the signal came before the benchmark knew the server's id, the kernel ends it, a moment later.
        _wait_for(lambda: all(map(_ended, servers)))


class Needs(WithScratch):
    def test_missing_programs_are_named(self) -> None:
        with mock.patch.dict(os.environ, {"PATH": str(self.scratch)}), self.assertRaisesRegex(BenchError, "wrk is not installed"):
            cli.check_needs(fixtures.fake_options(self.scratch))

    def test_a_missing_build_is_named(self) -> None:
        chosen = options.parse(["--build", str(self.scratch)])
        with self.assertRaisesRegex(BenchError, "mayfly-server does not exist: run `make build tenants`"):
            cli.check_needs(chosen)

    def probe(self, working: str, only: str | None = None) -> engines.Engines:
        """What is measured where those engines work."""
        with mock.patch.dict(os.environ, {"FAKE_ENGINES": working}):
            return engines.probe(fixtures.FAKE / "bin" / "mayfly", only)

    def test_each_engine_that_works_is_measured_and_auto_is_the_main_one(self) -> None:
        both = self.probe("kvm process")
        self.assertEqual((both.measured, both.main), (("kvm", "process"), "process"))
        for engine in ("kvm", "process"):
            found = self.probe(engine)
            self.assertEqual((found.measured, found.main), ((engine,), engine))
            self.assertEqual(self.probe("kvm process", engine).main, engine)

    def test_reasons_are_named_if_no_engine_works_or_not_the_wanted_one(self) -> None:
        with self.assertRaisesRegex(BenchError, "kvm: kvm, a stand-in; process: process, a stand-in"):
            self.probe("")
        with self.assertRaisesRegex(BenchError, "kvm: kvm, a stand-in"):
            self.probe("process", "kvm")

    def test_a_program_that_names_no_engines_is_an_error(self) -> None:
        with self.assertRaisesRegex(BenchError, "names no engines"):
            engines.probe(Path("/bin/true"))


def _children_named(pid: int, name: str) -> list[int]:
    """The children of a process whose command line holds a name."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has ended.
            if name in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    return found


def _ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped by the process that inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _wait_for(what, seconds: float = 20):
    """Calls until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (seen := what()):
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.02)
    return seen
