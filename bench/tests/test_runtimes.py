# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is measured of other runtimes: that the right things are compared, and that a failure becomes an entry and
affects no other.
"""

import contextlib
import copy
import io
import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from mayfly_bench import bars, cli, engines, options, page, runtimes, summary
from mayfly_bench.errors import BenchError
from mayfly_bench.runtimes import entries, rounds, versions, words
from mayfly_bench.runtimes.rounds import Side
from mayfly_bench.runtimes.samples import Samples
from mayfly_bench.wrk import Load

from . import fixtures
from .test_run import WithScratch

_REAL = Path(__file__).resolve().parents[2] / "drogon-plugin/server/runtimes.json"


def _quiet(_: str) -> None:
    """Says nothing of what goes on."""


class TenantsFile(WithScratch):
    def setUp(self) -> None:
        super().setUp()
        self.samples = Samples.read(fixtures.FAKE / "runtimes.json", fixtures.FAKE, self.scratch)

    def test_tenants_are_told_by_their_names(self) -> None:
        found = {runtime.name: {mode: (s.name, s.kept_host) for mode, s in runtime.modes.items()} for runtime in self.samples.runtimes}
        self.assertEqual(found["deno"], {"sdk": ("deno-sdk", "deno-sdk-kept"), "server": ("deno", "deno-kept")})
        self.assertEqual(found["node"], {"server": ("node", None)})
        self.assertEqual(list(found), ["deno", "node", "python", "go"])

    def test_a_file_is_written_with_the_wanted_tenants_and_their_twins_alone(self) -> None:
        deno = self.samples.runtimes[0].modes["sdk"]
        written = json.loads(self.samples.write(self.scratch / "t.json", [deno]).read_text())
        self.assertEqual([tenant["name"] for tenant in written["tenants"]], ["deno-sdk", "deno-sdk-kept"])
        self.assertEqual(written["tenants"][0]["program"], str(fixtures.FAKE / "tenants/web/web"))
        self.assertEqual(written["groups"]["deno"]["mounts"][0]["host"], str(fixtures.FAKE / "tenants/web"))
        self.assertNotIn("$schema", written)
        self.assertIs(written["watch"], False)

    def test_on_an_engine_a_tenant_and_its_twin_have_names_and_hosts_of_their_own(self) -> None:
        sample = self.samples.runtimes[0].modes["sdk"].on("process")
        self.assertEqual((sample.name, sample.host, sample.kept_host), ("deno-sdk-process", "deno-sdk.process", "deno-sdk-kept.process"))
        self.assertEqual((sample.config["engine"], sample.kept["engine"], sample.kept["name"]), ("process", "process", "deno-sdk-kept-process"))
        self.assertIsNone(self.samples.runtimes[1].modes["server"].on("kvm").kept_host)

    def test_without_a_sandbox_paths_are_the_host_s_and_the_port_is_another(self) -> None:
        command = self.samples.native(self.samples.runtimes[0].modes["server"], 1234)
        web = str(fixtures.FAKE / "tenants/web")
        self.assertEqual(command.arguments, [f"{web}/web", f"{web}/web", "1234"])
        self.assertEqual(command.environment, {"PATH": "/usr/bin:/bin", "HERE": web})

    def test_a_file_that_is_none_is_an_error(self) -> None:
        for text in ("", "[]", '{"tenants": [{}]}', '{"tenants": [{"name": "x", "program": "y"}]}'):
            file = self.scratch / "broken.json"
            file.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(BenchError, "broken.json"):
                Samples.read(file, self.scratch, self.scratch)

    def test_the_real_file_has_every_runtime_with_its_twin(self) -> None:
        samples = Samples.read(_REAL, Path("/b"), Path("/r"))
        modes = {runtime.name: list(runtime.modes) for runtime in samples.runtimes}
        both = ["sdk", "server"]
        self.assertEqual(
            modes, {"deno": both, "node": both, "python": both, "go": ["server"], "rust": both, "c": ["server"]}
        )
        for runtime in samples.runtimes:
            for sample in runtime.modes.values():
                self.assertEqual(sample.host, sample.name)
                self.assertEqual(
                    sample.kept, {**sample.config, "name": f"{sample.name}-kept", "hosts": [f"{sample.name}-kept"], "ephemeral": False}
                )
                self.assertNotIn("/app/", str(samples.native(sample, 1)))


class Versions(WithScratch):
    def test_programs_say_theirs_or_have_it_written_into_them(self) -> None:
        samples = Samples.read(fixtures.FAKE / "runtimes.json", fixtures.FAKE, self.scratch)
        deno = samples.runtimes[0].modes["server"]
        self.assertEqual(versions.version(samples, "deno", deno), "9.8.7")
        program = self.scratch / "program"
        binary = mock.Mock(config={"program": str(program)})
        program.write_bytes(b"x\xff Go buildinf:" + bytes(18) + b"\x06go1.19 and more")
        self.assertEqual(versions.version(samples, "go", binary), "go1.19")
        program.write_bytes(b"\0GCC: 12\0rustc version 1.88.0 (abc)\0")
        self.assertEqual(versions.version(samples, "rust", binary), "rustc version 1.88.0")
        program.unlink()
        self.assertEqual(versions.version(samples, "rust", binary), "?")


class Measuring(WithScratch):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        scratch = cls.enterClassContext(contextlib.ExitStack())
        directory = Path(scratch.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-bench-test-")))
        chosen, cpu = fixtures.fake_options(directory), sorted(os.sched_getaffinity(0))[-1]
        cls.engines = runtimes.measure(chosen, directory, ("kvm", "process"), 2, cpu, _quiet)
        cls.seen = cls.engines["kvm"]

    def test_each_engine_has_all_entries_and_the_same_rounds_of_what_is_not_sandboxed(self) -> None:
        self.assertEqual(list(self.engines), ["kvm", "process"])
        kvm, process = (seen["deno"]["sdk"] for seen in self.engines.values())
        self.assertEqual(kvm.keys(), process.keys())
        for side in ("vanilla", "native"):
            self.assertEqual(kvm["rounds"][side], process["rounds"][side])
        self.assertNotEqual(kvm["rounds"]["own"], process["rounds"]["own"])
        self.assertEqual({name: list(modes) for name, modes in self.seen.items()}, {n: list(m) for n, m in self.engines["process"].items()})

    def test_all_four_sides_are_measured_at_both_loads(self) -> None:
        for mode in ("sdk", "server"):
            seen = self.seen["deno"][mode]
            self.assertEqual((seen["version"], seen["exits"], seen["errors"]), ("9.8.7", 1, 0))
            for load, (connections, pinned) in ((seen, (1, True)), (seen["all_cores"], (8, False))):
                self.assertEqual((load["connections"], load["pinned"]), (connections, pinned))
                for side in ("rps", "native_rps", "vanilla_rps", "kept_rps", "relative", "p50_us", "cpu_us"):
                    self.assertGreater(load[side], 0, side)
            self.assertEqual((seen["private_mib"], seen["private_forked_mib"]), (2, 80 / 1024))
            self.assertIsNone(seen["snapshot_first_response_ms"])

    def test_what_does_not_boot_or_answers_wrong_is_an_entry_with_the_reason(self) -> None:
        self.assertIn("none/none: No such file", self.seen["node"]["server"]["error"])
        python = self.seen["python"]["server"]
        self.assertIn("answers 200 and b'visit 1", python["error"])
        self.assertEqual(python["exits"], 1)  # That was measured before.
        self.assertEqual({(name, mode) for name, mode, _ in runtimes.failures({"runtimes": self.seen})}, {("node", "server"), ("python", "server")})

    def test_what_cannot_run_outside_has_no_figure_for_that_alone(self) -> None:
        go = self.seen["go"]["server"]
        self.assertGreater(go["rps"], 0)
        self.assertIsNone(go["native_rps"])
        self.assertIn("Permission denied", go["native_error"] + go["all_cores"]["native_error"])


class Rounds(WithScratch):
    def test_a_server_that_is_gone_ends_a_runtime_and_not_one_side(self) -> None:
        dead = mock.Mock()
        dead.get.side_effect = BenchError("nobody there")
        sdk = Side("kvm", "sdk")
        sides = {rounds.VANILLA: rounds._Asked(dead), sdk: rounds._Asked(dead)}
        with self.assertRaisesRegex(BenchError, "sdk on kvm: lost"):
            rounds._only_if_alive(sides, sdk, BenchError("lost"))
        alive = {rounds.VANILLA: rounds._Asked(mock.Mock())}
        self.assertIsNone(rounds._only_if_alive(alive, sdk, BenchError("lost")))

    def test_the_order_turns_and_a_side_that_fails_is_left_out(self) -> None:
        asked = []

        def measure(server, load, seconds, path, host=None):
            asked.append(host)
            if host == "b" and len(asked) > 3:
                raise BenchError("b is lost")
            return fixtures.sample(1_000, 9.0)

        a, b = Side("kvm", "a"), Side("kvm", "b")
        sides = {side: rounds._Asked(mock.Mock(), host) for side, host in ((rounds.VANILLA, "v"), (a, "a"), (b, "b"))}
        seen = rounds.Seen({side: [] for side in sides})
        with mock.patch("mayfly_bench.comparison.measure", measure):
            for number in range(3):
                rounds._round(sides, Load(1, 1), 1, number, seen, _quiet)
        self.assertEqual(asked, ["v", "a", "b", "b", "a", "v", "v", "a"])
        self.assertEqual({side: len(taken) for side, taken in seen.rounds.items()}, {rounds.VANILLA: 3, a: 3})
        self.assertEqual(seen.errors, {b: "b is lost"})

    def test_after_its_time_a_runtime_has_its_first_round_and_no_other(self) -> None:
        chosen = fixtures.fake_options(self.scratch)
        chosen = options.Options(**{**chosen.__dict__, "runtimes": options.Runtimes(rounds=3)})
        samples = Samples.read(fixtures.FAKE / "runtimes.json", fixtures.FAKE, self.scratch)
        wanted = [Side("kvm", "sdk"), Side("process", "sdk")]
        sides = (rounds.VANILLA, rounds.NATIVE, *wanted, *(side._replace(kept=True) for side in wanted))
        with mock.patch("mayfly_bench.comparison.measure", lambda *_, **__: fixtures.sample(1, 1)):
            for end, expected in ((0.0, 1), (float("inf"), 3)):
                (seen,) = rounds.measure(chosen, self.scratch, samples, samples.runtimes[0], wanted, [Load(1, 1)], end, _quiet)
                self.assertEqual({side: len(taken) for side, taken in seen.rounds.items()}, dict.fromkeys(sides, expected))

    def test_rounds_are_compared_one_by_one(self) -> None:
        sdk = Side("kvm", "sdk")
        pairs = [(100, 50), (10, 4), (1_000, 600)]
        seen = rounds.Seen(
            {rounds.VANILLA: [fixtures.sample(v, 9.0) for v, _ in pairs], sdk: [fixtures.sample(own, 30.0) for _, own in pairs]}
        )
        entry = entries.entry(sdk, fixtures.called(), [seen, seen], [Load(1, 1, 0), Load(8, 2)])
        self.assertEqual((entry["relative"], entry["rps"], entry["vanilla_rps"]), (0.5, 50, 100))


class Bars(unittest.TestCase):
    def test_each_aim_can_be_missed(self) -> None:
        changes = {
            ("deno", "sdk", "exits"): 4, ("node", "sdk", "exits"): 4, ("deno", "server", "exits"): 13,
            ("deno", "sdk", "reset_us"): 27.6, ("deno", "server", "reset_us"): 27.6,
            ("deno", "sdk", "snapshot_first_response_ms"): 51, ("deno", "server", "snapshot_first_response_ms"): 51,
            ("deno", "sdk", "private_mib"): 3.1, ("node", "server", "private_mib"): 8.1,
            ("node", "sdk", "relative"): 0.243, ("deno", "sdk", "relative"): 0.274,
            ("node", "sdk", "errors"): 1, ("deno", "sdk", "errors"): 1,
            ("deno", "sdk", "all_cores", "relative"): 0.252, ("deno", "sdk", "all_cores", "errors"): 1,
        }  # fmt: skip
        for (*path, key), value in changes.items():
            with self.subTest(path=path, key=key):
                report = fixtures.report()
                place = report["runtimes"]
                for part in path:
                    place = place[part]
                place[key] = value
                missed = [bar["key"] for bar in bars.judge(report, "kvm") if not bar["met"]]
                self.assertEqual(len(missed), 1, missed)
                self.assertTrue(missed[0].startswith(".".join(["runtimes", *path])), missed)

    def test_what_failed_or_is_not_there_yet_is_not_met(self) -> None:
        report = fixtures.report()
        report["runtimes"]["deno"]["sdk"] = {"version": "1", "tenant": "t", **entries.failure("it did not boot")}
        report["runtimes"]["deno"]["server"]["snapshot_first_response_ms"] = None
        unmeasured = [bar for bar in bars.judge(report, "kvm") if bar["measured"] is None]
        self.assertEqual(len(unmeasured), 7, [bar["key"] for bar in unmeasured])
        self.assertFalse(any(bar["met"] for bar in unmeasured))


class Words(unittest.TestCase):
    def test_every_runtime_has_a_row_in_every_form_of_the_report(self) -> None:
        report = fixtures.report()
        self.assertEqual([row[:2] for row in words.table(report)[1:]], [row[:2] for row in words.all_cores_table(report)[1:]])
        self.assertEqual(len(words.table(report)), 1 + 6)
        self.assertEqual(words.failed_table(report), [])
        for written in (summary.terminal(report), summary.markdown(report), page.render(report)):
            for row in words.table(report):
                self.assertIn(row[0], written)
            self.assertNotIn("FAILED", written)

    def test_failures_are_named_with_their_reasons_in_every_form(self) -> None:
        report = fixtures.report()
        report["runtimes"]["deno"]["sdk"] = {"version": "1", "tenant": "t", **entries.failure("it did\nnot <boot>")}
        node = report["runtimes"]["node"]["sdk"]
        node["all_cores"] = entries.failure("too slow")
        report["runtimes"]["node"]["server"] |= {"errors": 7, "kept_error": "forgot all"}
        self.assertEqual(len(words.failed_table(report)), 1 + 4)
        report["bars"] = bars.judge(report, "kvm")
        for written in (summary.terminal(report), summary.markdown(report), page.render(report)):
            for reason in ("it did not", "too slow", "forgot all", "FAILED requests, c1 pinned", "kept FAILED"):
                self.assertIn(reason, written)
        self.assertNotIn("<boot>", page.render(report))

    def test_a_long_reason_keeps_its_end(self) -> None:
        reason = entries.failure("x" * 5_000 + "why")["error"]
        self.assertLess(len(reason), 700)
        self.assertTrue(reason.endswith("why"))

    def test_a_report_without_runtimes_still_renders(self) -> None:
        report = copy.deepcopy(fixtures.report())
        del report["runtimes"]
        self.assertNotIn("Runtimes", page.render(report | {"bars": bars.judge(report, "kvm")}) + summary.markdown(report))


class Alone(WithScratch):
    def test_a_run_of_runtimes_alone_writes_a_report_that_renders(self) -> None:
        chosen = fixtures.fake_options(self.scratch)
        with mock.patch("mayfly_bench.runtimes.measure", return_value={"process": fixtures.runtimes("process")["runtimes"]}):
            report = cli.measure_runtimes(chosen, engines.probe(chosen.cli))
        cli.write(report, self.scratch)
        summary.terminal(report)
        self.assertEqual({bar["key"].split(".")[0] for bar in report["bars"]}, {"runtimes"})
        self.assertIn("<h2>Runtimes</h2>", (self.scratch / "report.html").read_text())

    def test_it_is_chosen_on_the_command_line(self) -> None:
        self.assertEqual(options.parse(["--only", "runtimes"]).only, "runtimes")
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            options.parse(["--only", "all"])
        with (
            mock.patch.object(cli, "check_needs"), mock.patch.object(engines, "probe"),
            mock.patch.object(cli, "measure_runtimes", side_effect=BenchError("alone")),
        ):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertEqual(cli.main(["--only", "runtimes"]), 1)
        self.assertIn("alone", said.getvalue())


if __name__ == "__main__":
    unittest.main()
