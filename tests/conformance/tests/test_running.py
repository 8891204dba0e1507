# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs are run to their end, or ended; the guest's part reports what unittest does."""

import json
import sys
import tempfile
import time
import unittest
from pathlib import Path

from conformance import cpython, go, places
from conformance.observe import Command, observe
from conformance.verdicts import Verdict

MODULE = '''
import os, subprocess, sys, unittest

class First(unittest.TestCase):
    def test_fails(self): self.assertEqual(1, 2)
    def test_forks(self): subprocess.run([sys.executable, "-c", "pass"], check=True)
    def test_passes(self): print("no end of line", end="")
    def test_skips(self): self.skipTest("not here")
    def test_subs(self):
        for i in range(2):
            with self.subTest(i): self.assertEqual(i, 0)

class Second(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("no set-up")
    def test_never(self): pass

class Third(unittest.TestCase):
    def test_a(self): pass
    def test_dies(self): os._exit(3)
    def test_later(self): pass
'''


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def observe(self, reader, *arguments: str, patience: float = 60, most: float = 120) -> str:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.scratch)}
        command = Command(list(arguments), environment, self.scratch)
        return observe(command, reader, self.scratch / "log", lambda _: patience, most)


class Observing(Scratch):
    def test_a_program_that_ends_says_how(self) -> None:
        self.assertEqual(self.observe(go.Output("p"), "sh", "-c", "exit 3"), "status 3")
        self.assertEqual(self.observe(go.Output("p"), "sh", "-c", "kill -9 $$"), "signal 9")
        told = "echo 'run_to_end: out of memory' >&2; exit 125"
        self.assertEqual(self.observe(go.Output("p"), "sh", "-c", told), "status 125, out of memory")

    def test_a_silent_test_is_ended(self) -> None:
        reader = go.Output("p")
        began = time.monotonic()
        how = self.observe(reader, "sh", "-c", "echo '=== RUN   TestA'; sleep 600", patience=1)
        self.assertEqual((how, reader.current()), ("no end in time", "TestA"))
        self.assertLess(time.monotonic() - began, 300)

    def test_a_test_that_talks_for_ever_is_ended_too(self) -> None:
        how = self.observe(go.Output("p"), "sh", "-c", "echo '=== RUN   TestA'; yes", patience=1)
        self.assertEqual(how, "no end in time")
        self.assertLessEqual((self.scratch / "log").stat().st_size, 16 << 20)

    def test_a_module_has_a_time(self) -> None:
        program = "i=0; while :; do i=$((i+1)); echo \"=== RUN   Test$i\"; sleep 0.1; done"
        self.assertEqual(self.observe(go.Output("p"), "sh", "-c", program, most=1), "the module's time is over")

    def test_a_child_that_stays_holds_nothing_up(self) -> None:
        began = time.monotonic()
        self.assertEqual(self.observe(go.Output("p"), "sh", "-c", "sleep 600 & echo PASS"), "status 0")
        self.assertLess(time.monotonic() - began, 300)


class Guest(Scratch):
    def run_guest(self, **plan: list[str]) -> tuple[cpython.Lines, str]:
        (self.scratch / "test_sample.py").write_text(MODULE)
        (self.scratch / "plan.json").write_text(json.dumps(plan))
        reader = cpython.Lines()
        script = str(places.HERE / "guest" / "cpython_tests.py")
        how = self.observe(reader, sys.executable, script, "test_sample", str(self.scratch / "plan.json"))
        return reader, how

    def test_everything_is_reported(self) -> None:
        reader, how = self.run_guest()
        reader.broke_off(how)
        seen = {name.removeprefix("test_sample."): test for name, test in reader.run.tests.items()}
        verdicts = {name: test.verdict.value for name, test in seen.items()}
        self.assertEqual(
            verdicts,
            {
                "First.test_fails": "failed",
                "First.test_forks": "ok",
                "First.test_passes": "ok",
                "First.test_skips": "skipped",
                "First.test_subs": "failed",
                "Third.test_a": "ok",
                "Third.test_dies": "failed",
            },
        )
        self.assertEqual([name for name, test in seen.items() if test.process], ["First.test_forks"])
        self.assertEqual(seen["Third.test_dies"].cause, "status 3")
        self.assertEqual(seen["First.test_subs"].cause, "AssertionError: 1 != 0")
        self.assertEqual(reader.run.setups, {"test_sample.Second": "OSError: no set-up"})

    def test_it_goes_on_without_what_ended_it(self) -> None:
        reader, how = self.run_guest(without=["test_sample.Third.test_dies", "test_sample.Third.test_a"])
        self.assertEqual((how, reader.ended), ("status 0", True))
        self.assertIs(reader.run.tests["test_sample.Third.test_later"].verdict, Verdict.OK)

    def test_it_runs_what_is_planned_alone(self) -> None:
        reader, _ = self.run_guest(only=["test_sample.First.test_passes"])
        self.assertEqual(list(reader.run.tests), ["test_sample.First.test_passes"])

    def test_a_module_that_does_not_load_says_why(self) -> None:
        (self.scratch / "test_broken.py").write_text("import no_such_module")
        reader = cpython.Lines()
        self.observe(reader, sys.executable, str(places.HERE / "guest" / "cpython_tests.py"), "test_broken")
        self.assertIn("no_such_module", reader.run.setups[""])
