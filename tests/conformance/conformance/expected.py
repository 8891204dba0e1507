# SPDX-License-Identifier: MIT OR Apache-2.0
"""Lists of expected failures, and what a run says about them.

A line is a kind, a test's or module's name, and the reason:

    fails    test.test_os.FileTests.test_access  the reason why it fails inside
    process  net/http.TestX                      it needs a second process, which the rules do not see
    varies   test.test_time.TimeTest.test_sleep  its verdict is a matter of time: it is not counted
    without  test.test_idle                      a module that is not run
"""

from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConformanceError
from .verdicts import Comparison

_KINDS = ("fails", "process", "varies", "without")


@dataclass
class Expected:
    """A suite's list: reasons by name, for each kind."""

    fails: dict[str, str] = field(default_factory=dict)
    process: dict[str, str] = field(default_factory=dict)
    varies: dict[str, str] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)


def parse(text: str, source: str) -> Expected:
    """Reads a list; `source` names it in errors."""
    expected, seen = Expected(), set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, name, reason = [*line.split(maxsplit=2), "", ""][:3]
        if kind not in _KINDS or not name:
            raise ConformanceError(f"{source}:{number}: a line is {', '.join(_KINDS)}, a name, and a reason")
        if not reason:
            raise ConformanceError(f"{source}:{number}: {name} has no reason")
        if name in seen:
            raise ConformanceError(f"{source}:{number}: {name} is in the list already")
        seen.add(name)
        getattr(expected, kind)[name] = reason
    return expected


def read(path: Path) -> Expected:
    """Reads a list from a file."""
    return parse(path.read_text(), str(path))


@dataclass
class Judgement:
    """What a comparison means with a list."""

    counted: int
    passed: int
    #: Listed, and failed.
    expected: int
    process: int
    #: Not listed, and failed: with the cause.
    unexpected: dict[str, str]
    #: Listed, and passed: the lines have to go.
    mended: list[str]

    @property
    def percent(self) -> float:
        return 100.0 * self.passed / self.counted if self.counted else 0.0

    @property
    def good(self) -> bool:
        return not self.unexpected and not self.mended


def judge(comparison: Comparison, expected: Expected) -> Judgement:
    """Holds a comparison against the list of its suite."""
    apart = expected.process.keys() | expected.varies.keys()
    passed = [name for name in comparison.passed if name not in apart]
    failed = {name: cause for name, cause in comparison.failed.items() if name not in apart}
    marked = [name for name in (*comparison.passed, *comparison.failed) if name in expected.process]
    return Judgement(
        counted=len(passed) + len(failed),
        passed=len(passed),
        expected=sum(name in expected.fails for name in failed),
        process=len(comparison.process) + len(marked),
        unexpected={name: cause for name, cause in failed.items() if name not in expected.fails},
        mended=[name for name in passed if name in expected.fails],
    )
