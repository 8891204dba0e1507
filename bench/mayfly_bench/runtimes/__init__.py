# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs of other runtimes, as unmodified servers and with the SDK: what a request costs, reset and kept, beside the
same program without a sandbox and beside vanilla Drogon.

`measure` returns the report's `runtimes`, by name and mode. Each runtime has a server of its own, so that one that
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
from .samples import Runtime, Sample, Samples
from .versions import version

#: Connections where all cores are used.
_CONNECTIONS = 8


def measure(chosen: Options, scratch: Path, cores: int, cpu: int, progress: Callable[[str], None]) -> dict:
    """Measures each runtime of the tenants file."""
    samples = Samples.read(chosen.runtimes_file, chosen.build, chosen.root)
    loads = [Load(1, 1, cpu), Load(_CONNECTIONS, min(_CONNECTIONS, cores))]
    began = time.monotonic()
    report = {}
    for number, runtime in enumerate(samples.runtimes):
        # Each has its share of the time, and what those before it have left.
        end = began + chosen.runtimes.limit_s * (number + 1) / len(samples.runtimes)
        report[runtime.name] = _measure(chosen, scratch, samples, runtime, loads, end, progress)
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
    chosen: Options, scratch: Path, samples: Samples, runtime: Runtime, loads: Sequence[Load], end: float, progress: Callable[[str], None]
) -> dict:
    """The entries of one runtime, by mode."""
    called: dict[str, dict] = {}
    entries: dict[str, dict] = {}
    for mode, sample in runtime.modes.items():
        progress(f"{runtime.name}, {mode}: calls")
        known = {"version": version(samples, runtime.name, sample), "tenant": sample.name}
        try:
            called[mode] = _call(chosen, scratch, samples, sample, loads[0].cpu)
            entries[mode] = known
        except BenchError as error:
            entries[mode] = known | failure(error)
    if not called:
        return entries
    try:
        seen = rounds.measure(chosen, scratch, samples, runtime, called, loads, end, progress)
    except BenchError as error:
        return {mode: known if "error" in known else known | failure(error) for mode, known in entries.items()}
    return {
        mode: known if "error" in known else known | entry(mode, called[mode], seen, loads) for mode, known in entries.items()
    }


def _call(chosen: Options, scratch: Path, samples: Samples, sample: Sample, cpu: int | None) -> dict:
    """`mayfly bench` of one tenant: what a call costs without HTTP."""
    file = samples.write(scratch / "runtimes-bench.json", [sample])
    return micro.run_tenant(chosen.cli, file, sample.name, chosen.root, chosen.runtimes.requests, chosen.runtimes.call_seconds, cpu)
