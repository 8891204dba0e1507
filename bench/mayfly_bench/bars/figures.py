# SPDX-License-Identifier: MIT OR Apache-2.0
"""Figures of an engine's part of a report, and what they are held against.

A figure is a function of that part, which raises LookupError where the part does not have it.
"""

import statistics
from collections.abc import Callable

from ..comparison import find

Figure = Callable[[dict], float]
Within = Callable[[dict, float], bool]


def micro(name: str) -> Figure:
    """A figure of the micro-benchmarks."""
    return lambda report: report["micro"][name]


def ratio(above: str, below: str) -> Figure:
    """One of them over another."""
    return lambda report: report["micro"][above] / report["micro"][below]


def call_overhead(report: dict) -> float:
    """A call with its reset above the floor, in microseconds."""
    return report["micro"]["call_reset_us"] - report["micro"]["floor_us"]


def tenancy(name: str) -> Figure:
    """A figure of many tenants."""
    return lambda report: report["tenancy"][name]


def runtime(name: str, mode: str, *keys: str) -> Figure:
    """A figure of one runtime. LookupError also where the report says that there is none."""

    def measure(report: dict) -> float:
        value = report["runtimes"][name][mode]
        for key in keys:
            value = value[key]
        if value is None:
            raise LookupError(".".join((name, mode, *keys)))
        return value

    return measure


def at_most(limit: float) -> Within:
    """Up to a limit."""
    return lambda _, measured: measured <= limit


def at_least(limit: float) -> Within:
    """From a limit."""
    return lambda _, measured: measured >= limit


def nothing_failed(name: str, within: Callable[[float], bool]) -> Within:
    """Within the bar, and no request failed: a refusal is a fast answer."""
    return lambda report, measured: within(measured) and report["tenancy_rounds"][name]["failed_requests"] == 0


def no_failed_reload(report: dict, measured: float) -> bool:
    """No failure, and answers that could have shown one."""
    return measured == 0 and report["tenancy_rounds"]["reload_failures"]["answers"] > 0


def all_answered(name: str, mode: str, least: float, *load: str) -> Within:
    """At least `least`, and no request of the runtime failed."""
    errors = runtime(name, mode, *load, "errors")
    return lambda report, measured: measured >= least and errors(report) == 0


def system_calls(count: int) -> Within:
    """Whether the serving thread made so many ioctls per request and nothing else at all.

    Calls of other threads are in the report and not in this: the watchdog's tick comes with time, not with requests.
    """
    return lambda report, measured: measured == count and not report["micro"]["other_syscalls"]


def sandbox_cpu_us(report: dict) -> float:
    """The server's CPU time per request that the sandbox adds, at c1 on one CPU, that of processes that programs run in
    included: the median over the rounds' pairs.
    """
    pairs = _round_pairs(report, 1, True)
    return statistics.median(sandboxed["cpu_us"] - vanilla["cpu_us"] for vanilla, sandboxed in pairs)


def floor_us(report: dict) -> float:
    """The floor at c1 on one CPU: the median over the rounds."""
    return statistics.median(vanilla["floor_us"] for vanilla, _ in _round_pairs(report, 1, True))


def sandbox_cpu_floors(report: dict) -> float:
    """The same CPU time in floors, each round's in its own."""
    pairs = _round_pairs(report, 1, True)
    return statistics.median((sandboxed["cpu_us"] - vanilla["cpu_us"]) / vanilla["floor_us"] for vanilla, sandboxed in pairs)


def throughput_ratio(report: dict, connections: int = 8, pinned: bool = False) -> float:
    """Requests per second, sandboxed over vanilla, at c8 on all cores if not told otherwise: the median over the rounds'
    pairs.
    """
    pairs = _round_pairs(report, connections, pinned)
    return statistics.median(sandboxed["rps"] / vanilla["rps"] for vanilla, sandboxed in pairs)


def _round_pairs(report: dict, connections: int, pinned: bool) -> list[tuple[dict, dict]]:
    """What was measured back to back: a round of vanilla with the round of sandboxed beside it."""
    vanilla, sandboxed = (find(report["wrk"], route, connections, pinned) for route in ("vanilla", "sandboxed"))
    if vanilla is None or sandboxed is None:
        raise LookupError(f"c{connections}")
    return list(zip(vanilla["rounds"], sandboxed["rounds"], strict=True))
