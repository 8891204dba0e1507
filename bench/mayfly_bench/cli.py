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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import bars, comparison, host, micro, options, page, pages, pinning, runtimes, steady_state, summary, tenancy
from .comparison import ROUTES
from .errors import BenchError
from .options import Options
from .server import Server
from .wrk import Load


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark. Returns 0 if it was measured (met or not), 1 if it could not be."""
    chosen = options.parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    # The floor and the aims are those of KVM, whatever `auto` means here.
    os.environ.setdefault("MAYFLY_ENGINE", "kvm")
    try:
        check_needs(chosen)
        report = measure(chosen) if chosen.only is None else measure_runtimes(chosen)
        write(report, chosen.out)
    except BenchError as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
    print(summary.terminal(report))
    print(f"\nwritten to {chosen.out}: report.json, report.html, report.md")
    return 0


def check_needs(chosen: Options) -> None:
    """Raises BenchError with what to do if a program, the build or KVM is missing, before anything starts."""
    for tool in ("wrk", "strace", "taskset", "setpriv"):
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is not installed: run `make setup`")
    programs = (chosen.tenant(name) for name in ("hello", "workset", "counter", "visits", "spin"))
    for built in (chosen.server, chosen.cli, *programs):
        if not built.exists():
            raise BenchError(f"{built} does not exist: run `make build tenants`")
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise BenchError(
            f"/dev/kvm cannot be opened ({error.strerror}): the sandboxed half needs KVM. Load the host's KVM module, "
            "or give this user access to the device (usually membership of the group kvm)"
        ) from error


def measure(chosen: Options) -> dict:
    """Runs all measurements and returns the report."""
    started, began = datetime.now(UTC), time.monotonic()
    cores, cpu = len(pinning.cpus()), pinning.quiet_cpu()
    load_before = os.getloadavg()[0]

    micro_runs: list[dict] = []

    def floor() -> float:
        """Runs the micro-benchmarks where wrk and the server run, at the same time of day, and returns their floor."""
        micro_runs.append(micro.run(chosen.cli, chosen.program, chosen.requests, cpu))
        return micro_runs[-1]["floor_us"]

    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:

        def server(threads: int, cpu: int | None) -> Server:
            _progress("starting the server" if cpu is None else "starting the server, pinned")
            return Server(chosen.server, chosen.config, chosen.root, Path(scratch), threads=threads, cpu=cpu)

        with server(1, cpu) as running:
            _check_routes(running)
            pinned = comparison.compare(running, [Load(1, 1, cpu)], chosen.rounds, chosen.seconds, _progress, floor)
        by_page = micro.per_page(micro.run(chosen.cli, chosen.many_pages, chosen.requests, cpu))
        with server(cores, None) as running:
            answer = _check_routes(running)
            described = host.describe(running.pid, answer, micro_runs[0])
            planned = comparison.loads(cores, chosen.connections)
            entries = comparison.compare(running, planned, chosen.rounds, chosen.seconds, _progress) + pinned
        languages = runtimes.measure(chosen, Path(scratch), cores, cpu, _progress)
        many = tenancy.measure(chosen, Path(scratch), cores, micro_runs, _progress)
    _progress("counting system calls")
    counted = steady_state.count(chosen.cli, chosen.program, chosen.strace_requests)
    _progress("")

    own = micro.typical(micro_runs)
    report = {
        "host": described,
        "run": _run(chosen, started, began, load_before, answer),
        "micro": {**{key: value for key, value in own.items() if key != "host"}, **by_page, **counted.as_report()},
        "micro_runs": [{key: seen[key] for key in ("floor_us", "call_reset_us")} for seen in micro_runs],
        "wrk": entries,
        "runtimes": languages,
        **many,
    }
    return {**report, "bars": bars.judge(report)}


def measure_runtimes(chosen: Options) -> dict:
    """Measures programs of other runtimes alone. The report has nothing else, and the aims on nothing else."""
    started, began, load_before = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
    cores, cpu = len(pinning.cpus()), pinning.quiet_cpu()
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        with Server(chosen.server, chosen.config, chosen.root, Path(scratch), threads=1) as running:
            answer = running.get_when_booted(ROUTES["vanilla"])
            own = micro.run(chosen.cli, chosen.program, 100, cpu)
            described = host.describe(running.pid, answer, own)
        languages = runtimes.measure(chosen, Path(scratch), cores, cpu, _progress)
    _progress("")
    report = {
        "host": described,
        "run": _run(chosen, started, began, load_before, answer),
        "micro": {},
        "wrk": [],
        "runtimes": languages,
    }
    return {**report, "bars": [bar for bar in bars.judge(report) if bar["key"].startswith("runtimes.")]}


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


def _check_routes(server: Server) -> pages.Page:
    """Checks that both routes answer the same page, and returns the vanilla one."""
    vanilla, sandboxed = (server.get_when_booted(path) for path in ROUTES.values())
    pages.check_comparable(vanilla, sandboxed)
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
