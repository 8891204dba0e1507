# SPDX-License-Identifier: MIT OR Apache-2.0
"""The micro-benchmarks: `mayfly bench PROGRAM`, which calls one program without HTTP."""

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import BenchError
from .pinning import pinned_command

_TIMEOUT_S = 300
#: What a tenant of a file may take besides its requests: its boot, above all.
_BOOT_S = 90
#: Figures read from the memory in use of the cgroup, or of the machine.
_OF_MACHINE = ("worker_total_kib", "worker_served_total_kib")


def run(cli: Path, program: Path, requests: int, cpu: int | None, engine: str) -> dict:
    """Runs the micro-benchmarks once on an engine, kept on one CPU, and returns what they print.

    Raises BenchError with their own message if they fail.
    """
    command = [str(cli), "bench", str(program), "--engine", engine, "--requests", str(requests), "--json"]
    return _run(pinned_command(command, cpu))


def run_tenant(
    cli: Path, file: Path, tenant: str, root: Path, requests: int, seconds: int, cpu: int | None, engine: str
) -> dict:
    """Runs them once for one tenant of a file, whose paths are relative to `root`: at most `requests` requests, for
    about `seconds`.

    Raises BenchError with the reason if the tenant does not boot.
    """
    command = [
        *(str(cli), "bench", "--config", str(file), "--tenant", tenant, "--engine", engine),
        *("--requests", str(requests), "--seconds", str(seconds), "--json"),
    ]
    return _run(pinned_command(command, cpu), f"mayfly bench --tenant {tenant} --engine {engine}", root, _BOOT_S + 10 * seconds)


def _run(command: list[str], words: str | None = None, root: Path | None = None, timeout_s: int = _TIMEOUT_S) -> dict:
    """`words` is what errors call the command, if that is not itself."""
    words = words or " ".join(command)
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"no end within {timeout_s} s: {words}") from error
    if done.returncode != 0:
        raise BenchError(f"{words} failed ({done.returncode}):\n{done.stderr.strip()}")
    return parse(done.stdout)


def parse(output: str) -> dict:
    """Reads the JSON object. Raises BenchError if it is none."""
    try:
        seen = json.loads(output)
    except ValueError as error:
        raise BenchError(f"`mayfly bench --json` printed no JSON ({error}):\n{output[:400]}") from error
    if not isinstance(seen, dict):
        raise BenchError(f"`mayfly bench --json` printed no JSON object:\n{output[:400]}")
    return seen


def overhead_us(seen: dict) -> float:
    """What a call with its reset costs above the floor of the same run, in microseconds."""
    return seen["call_reset_us"] - seen["floor_us"]


def typical(runs: Sequence[dict]) -> dict:
    """The run whose overhead over its own floor is the median: figures of one run stay together."""
    overhead = statistics.median_low([overhead_us(seen) for seen in runs])
    return next(seen for seen in runs if overhead_us(seen) == overhead)


def medians(runs: Sequence[dict]) -> dict:
    """The medians of the figures that other processes change, too."""
    return {key: statistics.median(seen[key] for seen in runs) for key in _OF_MACHINE if all(seen.get(key) is not None for seen in runs)}


def per_page(seen: dict) -> dict:
    """The figures for each page, of a program that changes many: with one or two, a reset's fixed part hides them."""
    return {key: seen[key] for key in ("reset_ns_per_page", "memcpy_ns_per_page")}


def routes(cli: Path) -> dict:
    """What it costs to find a request's tenant, among one and among many. Raises BenchError if that cannot be measured.
    """
    return {key: value for key, value in _run([str(cli), "bench-routes", "--json"]).items() if key != "host"}
