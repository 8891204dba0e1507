# SPDX-License-Identifier: MIT OR Apache-2.0
"""The command line."""

import argparse
import fnmatch
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from . import cpython, expected, go, places
from .errors import ConformanceError
from .expected import Expected, Judgement
from .modules import Engine, Module, OutOfTimeError
from .verdicts import Comparison

_SUITES = {"cpython": cpython.Suite, "go": go.Suite}


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/conformance/run",
        description="Runs test suites of other projects natively and inside, and compares test by test with the lists of "
        "expected failures. What was seen is kept in build/conformance, and a run goes on where the last one stopped.",
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{' or '.join(_SUITES)}; both by default")
    parser.add_argument("--run-to-end", type=Path, metavar="PATH", help="the example of mayfly-sandbox, built")
    parser.add_argument("--modules", action="append", metavar="PATTERN", help="only these, as test.test_os or net/*")
    parser.add_argument("--minutes", type=float, default=120.0, help="end after that time (120)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="modules at a time (2)")
    parser.add_argument("--again", action="store_true", help="run inside what has been run")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs what the arguments say; 0 if the lists are right."""
    options = _arguments(arguments)
    try:
        return _run(options)
    except ConformanceError as error:
        print(f"conformance: error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    for name in options.suites:
        if name not in _SUITES:
            raise ConformanceError(f"no suite {name}: there are {', '.join(_SUITES)}")
    program = options.run_to_end or places.REPOSITORY / "build/cargo/release/examples/run_to_end"
    if not program.exists():
        raise ConformanceError(f"no {program}: cargo build --release --package mayfly-sandbox --example run_to_end")
    engine = Engine(os.environ.get("MAYFLY_ENGINE", "process"), program.resolve())
    end = time.monotonic() + 60 * options.minutes
    rows, good = [], True
    for name in options.suites or _SUITES:
        suite = _SUITES[name]()
        listed = expected.read(places.HERE / f"{name}.txt")
        comparison, missing = _suite(suite, listed, engine, options, end)
        judgement = expected.judge(comparison, listed)
        good &= _tell(suite, listed, comparison, judgement, missing)
        rows.append((suite, judgement, missing))
    print(_table(rows))
    return 0 if good else 1


def _suite(suite, listed: Expected, engine: Engine, options, end: float) -> tuple[Comparison, int]:
    """What all modules say together, and how many have not run."""
    patterns = options.modules
    names = [name for name in suite.modules() if name not in listed.without]
    if patterns:
        names = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    key = engine.key
    modules = {name: Module(suite, name, engine, key, end) for name in names}
    comparison, waiting = Comparison(), []
    for name, module in modules.items():
        known = None if options.again else module.kept()
        if known is None:
            waiting.append(name)
        else:
            comparison.update(known)

    def one(name: str) -> Comparison | None:
        if time.monotonic() > end:
            return None
        try:
            return modules[name].run(set(listed.fails), options.again)
        except OutOfTimeError:
            return None

    missing = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(one, name): name for name in waiting}
        for job in as_completed(jobs):
            seen = job.result()
            if seen is None:
                missing += 1
                continue
            comparison.update(seen)
            new = sum(test not in listed.fails for test in seen.failed)
            print(
                f"{suite.name}: {jobs[job]}: {len(seen.passed)} passed, {len(seen.failed)} failed ({new} not listed), "
                f"{len(seen.process)} need a second process",
                flush=True,
            )
    return comparison, missing


def _tell(suite, listed: Expected, comparison: Comparison, judgement: Judgement, missing: int) -> bool:
    """Says what is wrong with the list, and writes what failed in the form of one."""
    lines = [f"fails    {test} {listed.fails.get(test) or cause}" for test, cause in sorted(comparison.failed.items())]
    places.BUILD.mkdir(parents=True, exist_ok=True)
    (places.BUILD / f"{suite.name}.failed.txt").write_text("".join(line + "\n" for line in lines))
    (places.BUILD / f"{suite.name}.process.json").write_text(json.dumps(sorted(comparison.process), indent=0))
    if judgement.unexpected:
        print(f"\n{suite.name}: these failed, and are not expected to:")
        for test, cause in sorted(judgement.unexpected.items()):
            print(f"  {test}  {cause}")
    if judgement.mended:
        print(f"\n{suite.name}: these passed: remove their lines from tests/conformance/{suite.name}.txt:")
        for test in sorted(judgement.mended):
            print(f"  {test}")
    if missing:
        print(f"\n{suite.name}: {missing} modules have not run: run it again, and it goes on")
    return judgement.good and not missing


def _table(rows) -> str:
    form = "{:14} {:>8} {:>8} {:>8} {:>6}  {:>17}  {:>22}"
    lines = ["", form.format("suite", "counted", "passed", "percent", "bar", "expected failures", "needs a second process")]
    for suite, judgement, missing in rows:
        lines.append(
            form.format(
                suite.title + (" *" if missing else ""),
                judgement.counted,
                judgement.passed,
                f"{judgement.percent:.2f}",
                f"{suite.bar:.0f}",
                judgement.expected,
                judgement.process,
            )
        )
    if any(missing for _, _, missing in rows):
        lines.append("* not all of it has run")
    return "\n".join(lines)
