# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs of other runtimes, as unmodified servers and with the SDK: what a request costs, reset and kept, beside the
same program without a sandbox and beside vanilla Drogon.

`measure` returns the report's `runtimes`, by engine, name and mode. Each runtime has a server of its own, so that one that
fails, or ends the server, becomes an entry with its reason and does not affect the others.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import micro
from ..errors import BenchError
from ..options import Options
from ..wrk import Load
from . import rounds
from .entries import entry, failure
from .rounds import Side
from .samples import Runtime, Sample, Samples
from .versions import version

#: Connections where all cores are used.
_CONNECTIONS = 8


def measure(
    chosen: Options, scratch: Path, engines: Sequence[str], cores: int, cpu: int, progress: Callable[[str], None]
) -> dict[str, dict]:
    """Measures each runtime of the tenants file on each engine."""
    samples = Samples.read(chosen.runtimes_file, chosen.build, chosen.root)
    loads = [Load(1, 1, cpu), Load(_CONNECTIONS, min(_CONNECTIONS, cores))]
    began, limit_s = time.monotonic(), chosen.runtimes.limit_for(len(engines))
    report: dict[str, dict] = {engine: {} for engine in engines}
    for number, runtime in enumerate(samples.runtimes):
        # Each has its share of the time, and what those before it have left.
        end = began + limit_s * (number + 1) / len(samples.runtimes)
        for engine, entries in _measure(chosen, scratch, samples, runtime, engines, loads, end, progress).items():
            report[engine][runtime.name] = entries
    return report


def failures(report: dict) -> list[tuple[str, str, str]]:
    """Name, mode and reason of what could not be measured."""
    return [
        (name, mode, part["error"])
        for name, modes in report.get("runtimes", {}).items()
        for mode, seen in modes.items()
        for part in (seen, seen.get("all_cores", {}))
        if "error" in part
    ]


def _measure(
    chosen: Options, scratch: Path, samples: Samples, runtime: Runtime, engines: Sequence[str], loads: Sequence[Load], end: float,
    progress: Callable[[str], None],
) -> dict[str, dict]:
    """The entries of one runtime, by engine and mode."""
    called: dict[Side, dict] = {}
    entries: dict[Side, dict] = {}
    for mode, sample in runtime.modes.items():
        known = {"version": version(samples, runtime.name, sample), "tenant": sample.name}
        for engine in engines:
            progress(f"{runtime.name}, {mode} on {engine}: calls")
            side = Side(engine, mode)
            try:
                called[side] = _call(chosen, scratch, samples, sample, loads[0].cpu, engine)
                entries[side] = known
            except BenchError as error:
                entries[side] = known | failure(error)
    if called:
        try:
            seen = rounds.measure(chosen, scratch, samples, runtime, called, loads, end, progress)
            entries |= {side: entries[side] | entry(side, called[side], seen, loads) for side in called}
        except BenchError as error:
            entries |= {side: entries[side] | failure(error) for side in called}
    return {engine: {side.mode: seen for side, seen in entries.items() if side.engine == engine} for engine in engines}


def _call(chosen: Options, scratch: Path, samples: Samples, sample: Sample, cpu: int | None, engine: str) -> dict:
    """`mayfly bench` of one tenant: what a call costs without HTTP."""
    file = samples.write(scratch / "runtimes-bench.json", [sample])
    plan = chosen.runtimes
    return micro.run_tenant(chosen.cli, file, sample.name, chosen.root, plan.requests, plan.call_seconds, cpu, engine)
