# SPDX-License-Identifier: MIT OR Apache-2.0
"""What became of tests in one run, and what two runs of them mean together."""

from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """What became of a test that was begun."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Test:
    """One test in one run."""

    verdict: Verdict
    #: Of a failure: what was said about it, in one line.
    cause: str = ""
    #: Whether it asked for a second process.
    process: bool = False
    seconds: float = 0.0


@dataclass
class Run:
    """One module's tests in one run, or in several that went on after each other."""

    tests: dict[str, Test] = field(default_factory=dict)
    #: Why tests did not begin: the name of what is set up for them, or nothing for all, and what went wrong there.
    setups: dict[str, str] = field(default_factory=dict)
    #: Classes for whose set-up a second process was asked for; an empty name stands for the module that loads.
    process_setups: set[str] = field(default_factory=set)

    def update(self, later: "Run") -> None:
        """Adds what a later run saw."""
        self.tests.update(later.tests)
        self.setups.update(later.setups)
        self.process_setups |= later.process_setups

    def as_json(self) -> dict[str, object]:
        return {
            "tests": {name: [t.verdict.value, t.cause, t.process, round(t.seconds, 2)] for name, t in self.tests.items()},
            "setups": self.setups,
            "process_setups": sorted(self.process_setups),
        }

    @staticmethod
    def from_json(value: dict) -> "Run":
        tests = {name: Test(Verdict(v), c, p, s) for name, (v, c, p, s) in value["tests"].items()}
        return Run(tests, dict(value["setups"]), set(value["process_setups"]))


def owner(test: str) -> str:
    """What a test's name begins with: its class, or its package."""
    return test.rpartition(".")[0]


@dataclass
class Comparison:
    """A module's tests that passed natively: each is in one of the three."""

    passed: list[str] = field(default_factory=list)
    #: With the cause.
    failed: dict[str, str] = field(default_factory=dict)
    process: list[str] = field(default_factory=list)

    def update(self, other: "Comparison") -> None:
        self.passed += other.passed
        self.failed.update(other.failed)
        self.process += other.process


def planned(native: Run) -> list[str]:
    """The tests that are run inside: those that pass natively, without a second process."""
    return [name for name, test in native.tests.items() if test.verdict is Verdict.OK and not test.process]


def compare(native: Run, inside: Run) -> Comparison:
    """What the runs say of the tests that passed natively."""
    comparison = Comparison()
    for name, test in native.tests.items():
        if test.verdict is not Verdict.OK:
            continue
        seen = inside.tests.get(name)
        if test.process or (seen is not None and seen.process and seen.verdict is not Verdict.OK):
            comparison.process.append(name)
        elif (seen is None or seen.verdict is Verdict.SKIPPED) and native.process_setups & {"", owner(name)}:
            comparison.process.append(name)
        elif seen is not None and seen.verdict is Verdict.OK:
            comparison.passed.append(name)
        elif seen is None:
            comparison.failed[name] = "not run: " + (inside.setups.get(owner(name)) or inside.setups.get("") or "no reason told")
        else:
            comparison.failed[name] = ("skipped: " if seen.verdict is Verdict.SKIPPED else "") + seen.cause
    return comparison
