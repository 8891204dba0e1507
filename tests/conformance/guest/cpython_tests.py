# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs one module of CPython's tests, natively or inside, and prints a line for each thing that happens.

usage: cpython_tests.py MODULE [PLAN]

PLAN is a JSON file: {"only": [names]} or {"without": [names]}. A line begins with a mark that no test prints, then
start, ok, failed, skipped, process or end, a test's name, and what is told about it.
"""

import json
import os
import sys
import tempfile
import traceback
import unittest

MARK = "\x1d"

_process = os.getpid()
# A descriptor of its own: tests put files in the place of stdout.
_lines = os.dup(1)
_current = "-"


def say(kind: str, name: str = "-", told: str = "") -> None:
    # A child that a test has left running here has nothing to say.
    if os.getpid() == _process:
        told = " ".join(told.split())
        if len(told) > 300:
            told = f"{told[:140]} ... {told[-150:]}"
        os.write(_lines, f"\n{MARK}{kind} {name} {told}\n".encode(errors="replace"))


def name_of(test: object) -> str:
    return "_".join(test.id().split())  # type: ignore[attr-defined]


# What asks for another process or program; multiprocessing's way has no audit event of its own.
_ASKS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen"}


def _audit(event: str, _arguments: object) -> None:
    if event in _ASKS:
        say("process", _current)


def watch_processes() -> None:
    import _posixsubprocess

    fork_exec = _posixsubprocess.fork_exec

    def told(*arguments: object) -> int:
        say("process", _current)
        return fork_exec(*arguments)

    _posixsubprocess.fork_exec = told
    sys.addaudithook(_audit)


class Lines(unittest.TestResult):
    """Prints what unittest tells it."""

    def startTest(self, test):  # noqa: N802
        global _current
        super().startTest(test)
        self._told = ("ok", "")
        _current = name_of(test)
        say("start", _current)

    def stopTest(self, test):  # noqa: N802
        global _current
        super().stopTest(test)
        say(self._told[0], name_of(test), self._told[1])
        _current = "-"

    def _tell(self, test, kind, told):
        if isinstance(test, unittest.case.TestCase):
            # The first failure of several is told.
            if self._told[0] != "failed":
                self._told = (kind, told)
        else:
            say(kind, name_of(test), told)  # setUpClass and its kin

    def _bad(self, test, error):
        traceback.print_exception(*error)
        self._tell(test, "failed", f"{error[0].__name__}: {error[1]}")

    def addError(self, test, err):  # noqa: N802
        self._bad(test, err)

    def addFailure(self, test, err):  # noqa: N802
        self._bad(test, err)

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            self._bad(test, err)

    def addSkip(self, test, reason):  # noqa: N802
        self._tell(test, "skipped", str(reason))

    def addUnexpectedSuccess(self, test):  # noqa: N802
        self._tell(test, "failed", "an unexpected success")


def planned(suite: unittest.TestSuite, wanted) -> unittest.TestSuite:
    """The suite without what is not wanted, in its order."""
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(planned(test, wanted))
        # What stands for a module that does not load says why.
        elif test.id().startswith("unittest.loader.") or wanted(name_of(test)):
            kept.addTest(test)
    return kept


def main(module: str, plan: str | None) -> None:
    watch_processes()
    wanted = lambda _: True  # noqa: E731
    if plan is not None:
        with open(plan, encoding="utf-8") as file:
            read = json.load(file)
        only, without = read.get("only"), set(read.get("without", ()))
        chosen = None if only is None else set(only)
        wanted = lambda name: name not in without if chosen is None else name in chosen  # noqa: E731
    os.chdir(tempfile.mkdtemp())
    sys.argv[1:] = []

    from test import support

    support.use_resources = {}  # no network, nothing that takes long: what regrtest does by itself
    support.verbose = 0
    result = Lines()
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
    except unittest.SkipTest as skip:
        say("skipped", "setUpModule", str(skip))
        suite = unittest.TestSuite()
    planned(suite, wanted).run(result)
    say("end")
    # Threads that a test has left waiting keep nothing alive.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
