# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs a module natively and inside, and keeps what was seen, so that a run goes on where the last one stopped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import places
from .observe import Command, observe
from .verdicts import Comparison, Run, compare, planned

#: The wall-clock time of a module.
_MODULE_SECONDS = 150
#: The time in which a test has to end: natively, and what is added inside to a multiple of that.
_NATIVE_SECONDS = 45
_INSIDE_SECONDS, _INSIDE_TIMES = 15, 10
#: How often a module goes on after its program has ended within a test.
_GOES_ON = 12
#: Most tests that are run again because they failed.
_AGAIN = 60


@dataclass(frozen=True)
class Engine:
    """What runs programs inside."""

    name: str
    run_to_end: Path

    @property
    def key(self) -> str:
        return places.digest(self.name.encode(), self.run_to_end.read_bytes())


class OutOfTimeError(Exception):
    """The whole run's time is over; what the module had seen is forgotten."""


class Module:
    """One module of a suite, which has to be done before `end`."""

    def __init__(self, suite, name: str, engine: Engine, engine_key: str, end: float) -> None:
        self._end = end
        self._suite, self._name, self._engine = suite, name, engine
        self._file = name.replace("/", "_")
        self._keys = {"native": suite.key, "inside": places.digest(suite.key.encode(), engine_key.encode())}

    def _kept(self, where: str) -> Path:
        return places.BUILD / "seen" / self._suite.name / where / f"{self._file}.json"

    def kept(self) -> Comparison | None:
        """What is known from earlier runs, if that is all."""
        native, inside = self._recall("native"), self._recall("inside")
        return compare(native, inside) if native and inside else None

    def _recall(self, where: str) -> Run | None:
        try:
            value = json.loads(self._kept(where).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return Run.from_json(value["run"]) if value["key"] == self._keys[where] else None

    def _keep(self, where: str, run: Run) -> Run:
        path = self._kept(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"key": self._keys[where], "run": run.as_json()}, indent=0))
        new.rename(path)
        return run

    def run(self, expected_to_fail: set[str], again: bool = False) -> Comparison:
        """Runs what is not known, natively first; inside in any case if it is to run again."""
        native = self._recall("native")
        if native is None:
            self._suite.prepare(self._name)
            native = self._keep("native", self._series("native", None, lambda _: _NATIVE_SECONDS, self._log("native")))
        inside = None if again else self._recall("inside")
        if inside is None:
            inside = self._keep("inside", self._inside(native, expected_to_fail))
        return compare(native, inside)

    def _inside(self, native: Run, expected_to_fail: set[str]) -> Run:
        def patience(test: str | None) -> float:
            seen = native.tests.get(test) if test else None
            return _INSIDE_SECONDS + _INSIDE_TIMES * (seen.seconds if seen else 1.0)

        plan = planned(native)
        if not plan:
            return Run()
        self._suite.prepare(self._name)
        run = self._series("inside", plan, patience, self._log("inside"))
        # Suites that go by the clock fail now and then, on any system; what fails alone as well counts.
        comparison = compare(native, run)
        again = [name for name in comparison.failed if name not in expected_to_fail and name in plan]
        if again and len(again) <= _AGAIN:
            run.update(self._series("inside", again, patience, self._log("again")))
        return run

    def _log(self, name: str) -> Path:
        """A new file for the output."""
        path = places.BUILD / "logs" / self._suite.name / f"{self._file}.{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    def _series(self, where: str, plan: list[str] | None, patience: Callable[[str | None], float], log: Path) -> Run:
        """Runs the planned tests, or all, and goes on after a test that ended the program, or never ended."""
        run, end = Run(), time.monotonic() + _MODULE_SECONDS
        last = min(end, self._end)
        for times in range(_GOES_ON):
            before = len(run.tests)
            only = None if plan is None else [name for name in plan if times == 0 or name not in run.tests]
            if only == []:
                break
            ended = self._once(where, only, list(run.tests), run, log, patience, last - time.monotonic())
            if time.monotonic() > self._end:
                raise OutOfTimeError
            if ended or time.monotonic() > end or len(run.tests) == before:
                break
        return run

    def _once(self, where, only, without, run: Run, log: Path, patience, most: float) -> bool:
        plan = places.BUILD / "plans" / self._suite.name / f"{self._file}.{where}.json"
        plan.parent.mkdir(parents=True, exist_ok=True)
        program = self._suite.program(self._name, plan, only, without)
        command: Command = program.natively() if where == "native" else program.inside(self._engine.run_to_end)
        if where == "inside":
            command.environment["MAYFLY_ENGINE"] = self._engine.name
        reader = self._suite.reader(self._name)
        how = observe(command, reader, log, patience, most)
        if not reader.ended:
            reader.broke_off(how)
        run.update(reader.run)
        return reader.ended


