# SPDX-License-Identifier: MIT OR Apache-2.0
"""The runtimes' figures in words, for all forms of the report."""

from collections.abc import Iterator

from ..figures import Table, number
from . import failures


def table(report: dict) -> Table:
    """A row for each runtime and mode: one connection, server and wrk on one CPU. Empty where none was measured."""
    heading = [
        "runtime", "as", "version", "exits", "requests/s", "kept", "native", "vanilla", "of vanilla", "p50 µs", "server CPU µs",
        "reset µs", "pages", "idle MiB", "boot ms",
    ]
    keys = (
        "exits", "rps", "kept_rps", "native_rps", "vanilla_rps", "relative", "p50_us", "cpu_us", "reset_us", "workset_pages",
        "private_mib", "boot_ms",
    )
    rows = [
        [name, mode, seen["version"], *(_number(seen[key]) for key in keys)] for name, mode, seen in _measured(report)
    ]
    return [heading, *rows] if rows else []


def all_cores_table(report: dict) -> Table:
    """The same programs on all cores."""
    keys = ("connections", "rps", "kept_rps", "native_rps", "vanilla_rps", "relative", "p50_us", "p99_us", "cpu_us")
    measured = ((name, mode, seen["all_cores"]) for name, mode, seen in _measured(report) if "error" not in seen["all_cores"])
    rows = [[name, mode, *(_number(seen[key]) for key in keys)] for name, mode, seen in measured]
    heading = ["runtime", "as", "connections", "requests/s", "kept", "native", "vanilla", "of vanilla", "p50 µs", "p99 µs", "server CPU µs"]
    return [heading, *rows] if rows else []


def failed_table(report: dict) -> Table:
    """What could not be measured, or went wrong on the way, and why."""
    rows = [[name, mode, "FAILED", " ".join(reason.split())] for name, mode, reason in failures(report)]
    for name, mode, seen in _measured(report):
        for load, at_load in (("c1 pinned", seen), ("all cores", seen["all_cores"])):
            if at_load.get("errors"):
                rows.append([name, mode, f"FAILED requests, {load}", number(at_load["errors"])])
            for side in ("native", "kept"):
                if (reason := at_load.get(f"{side}_error")) is not None:
                    rows.append([name, mode, f"{side} FAILED, {load}", " ".join(reason.split())])
    return [["runtime", "as", "what", "why"], *rows] if rows else []


def _measured(report: dict) -> Iterator[tuple[str, str, dict]]:
    for name, modes in report.get("runtimes", {}).items():
        for mode, seen in modes.items():
            if "error" not in seen:
                yield name, mode, seen


def _number(value: float | int | None) -> str:
    return "" if value is None else number(value)
