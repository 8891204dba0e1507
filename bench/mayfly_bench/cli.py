# SPDX-License-Identifier: MIT OR Apache-2.0
"""The run from start to end: check what is needed, measure, judge, write."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import bars, comparison, engines, host, micro, options, page, pages, pinning, runtimes, steady_state, summary, tenancy
from .engines import Engines
from .errors import BenchError
from .options import Options
from .routes import ROUTES, VANILLA
from .server import Server
from .wrk import Load


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark. Returns 0 if it was measured (met or not), 1 if it could not be."""
    chosen = options.parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        check_needs(chosen)
        found = engines.probe(chosen.cli, chosen.engine)
        report = measure(chosen, found) if chosen.only is None else measure_runtimes(chosen, found)
        write(report, chosen.out)
    except BenchError as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
    print(summary.terminal(report))
    print(f"\nwritten to {chosen.out}: report.json, report.html, report.md")
    failures = report["run"].get("failures", [])
    for failure in failures:
        print(f"\nbench: a part failed, and its figures are missing: {failure}", file=sys.stderr)
    return 1 if failures else 0


def check_needs(chosen: Options) -> None:
    """Raises BenchError with what to do if a program or the build is missing, before anything starts."""
    for tool in ("wrk", "strace", "taskset", "setpriv"):
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is not installed: run `make setup`")
    programs = (chosen.tenant(name) for name in ("hello", "workset", "counter", "visits", "spin"))
    for built in (chosen.server, chosen.cli, *programs):
        if not built.exists():
            raise BenchError(f"{built} does not exist: run `make build tenants`")


def measure(chosen: Options, found: Engines) -> dict:
    """Runs all measurements and returns the report."""
    started, began = datetime.now(UTC), time.monotonic()
    cores, cpu = len(pinning.cpus()), pinning.quiet_cpu()
    load_before = os.getloadavg()[0]

    micro_runs: dict[str, list[dict]] = {engine: [] for engine in found.measured}

    def floor(engine: str) -> float:
        """Runs the micro-benchmarks where wrk and the server run, at the same time of day, and returns their floor."""
        micro_runs[engine].append(micro.run(chosen.cli, chosen.program, chosen.requests, cpu, engine))
        return micro_runs[engine][-1]["floor_us"]

    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:

        def server(threads: int, cpu: int | None) -> Server:
            _progress("starting the server" if cpu is None else "starting the server, pinned")
            place = Path(scratch)
            return Server(chosen.server, chosen.config, chosen.root, place, threads=threads, cpu=cpu, engines=found.measured)

        def compare(running: Server, loads: Sequence[Load], floor: Callable[[str], float] | None = None) -> dict[str, list[dict]]:
            return comparison.compare(running, found.measured, loads, chosen.rounds, chosen.seconds, _progress, floor)

        with server(1, cpu) as running:
            _check_routes(running, found)
            pinned = compare(running, [Load(1, 1, cpu)], floor)
        with server(cores, None) as running:
            answer = _check_routes(running, found)
            described = host.describe(running.pid, answer, found)
            entries = compare(running, comparison.loads(cores, chosen.connections))
        failures: list[str] = []
        nothing: dict[str, dict] = {engine: {} for engine in found.measured}
        place = Path(scratch)
        languages = attempt(failures, nothing, lambda: runtimes.measure(chosen, place, found.measured, cores, cpu, _progress))
        many = attempt(failures, nothing, lambda: tenancy.measure(chosen, place, cores, micro_runs, _progress))
    parts = {
        engine: {
            **_micro(chosen, engine, runs, cpu),
            "wrk": entries[engine] + pinned[engine],
            "runtimes": languages[engine],
            **many[engine],
        }
        for engine, runs in micro_runs.items()
    }
    _progress("")
    run = {**_run(chosen, started, began, load_before, answer), "failures": failures}
    return _judged({"host": described, "run": run}, parts, found)


def attempt(failures: list[str], otherwise: dict[str, dict], measurement: Callable[[], dict[str, dict]]) -> dict[str, dict]:
    """The figures of one part of the run, or `otherwise` if it fails: what was measured before it is still reported."""
    try:
        return measurement()
    except BenchError as error:
        failures.append(str(error))
        return otherwise


def _micro(chosen: Options, engine: str, runs: list[dict], cpu: int | None) -> dict:
    """The report's `micro` and `micro_runs` of one engine, of which the runs without HTTP are there already."""
    _progress(f"{engine}: many pages")
    by_page = micro.per_page(micro.run(chosen.cli, chosen.many_pages, chosen.requests, cpu, engine))
    _progress(f"{engine}: counting system calls")
    counted = steady_state.count(chosen.cli, chosen.program, chosen.strace_requests, engine)
    own = {key: value for key, value in micro.typical(runs).items() if key != "host"}
    return {
        "micro": {**own, **micro.medians(runs), **by_page, **counted.as_report()},
        "micro_runs": [{key: seen[key] for key in ("floor_us", "call_reset_us")} for seen in runs],
    }


def measure_runtimes(chosen: Options, found: Engines) -> dict:
    """Measures programs of other runtimes alone. The report has nothing else, and the aims on nothing else."""
    started, began, load_before = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
    cores, cpu = len(pinning.cpus()), pinning.quiet_cpu()
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        with Server(chosen.server, chosen.config, chosen.root, Path(scratch), threads=1) as running:
            answer = running.get_when_booted(ROUTES[VANILLA])
            described = host.describe(running.pid, answer, found)
        languages = runtimes.measure(chosen, Path(scratch), found.measured, cores, cpu, _progress)
    _progress("")
    parts = {engine: {"micro": {}, "wrk": [], "runtimes": seen} for engine, seen in languages.items()}
    common = {"host": described, "run": _run(chosen, started, began, load_before, answer)}
    return _judged(common, parts, found, lambda bar: bar["key"].startswith("runtimes."))


def _judged(common: dict, parts: dict[str, dict], found: Engines, wanted: Callable[[dict], bool] = lambda _: True) -> dict:
    """The report, with each engine's aims."""
    judged = {
        engine: {**part, "bars": [bar for bar in bars.judge(part, engine) if wanted(bar)]} for engine, part in parts.items()
    }
    return engines.combined(common, judged, found.main)


def _run(chosen: Options, started: datetime, began: float, load_before: float, answer: pages.Page) -> dict:
    """The report's `run`."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "commit": _commit(chosen.root),
        "rounds": chosen.rounds,
        "seconds_per_round": chosen.seconds,
        "load_before": load_before,
        "priority": host.priority(),
        "page_bytes": len(answer.body),
    }


def write(report: dict, out: Path) -> None:
    """Writes the report as JSON, as a page and as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page.render(report), encoding="utf-8")
    (out / "report.md").write_text(summary.markdown(report), encoding="utf-8")


def _check_routes(server: Server, found: Engines) -> pages.Page:
    """Checks that all routes answer the same page, and returns the vanilla one."""
    vanilla = server.get_when_booted(ROUTES[VANILLA])
    for engine in found.measured:
        pages.check_comparable(vanilla, server.get_when_booted(ROUTES[engine]), f"sandboxed ({engine})")
    return vanilla


def _commit(root: Path) -> str:
    """The commit that was measured, with a mark if the tree had changes; "?" outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "?"


def _progress(what: str) -> None:
    """Says on one line of a terminal what goes on; in a log, one line each."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
    elif what:
        print(what, file=sys.stderr, flush=True)


def _leave(number: int, _frame: object) -> None:
    """A signal ends the run as an interrupt does, so that the server is stopped on the way out."""
    raise KeyboardInterrupt(number)
