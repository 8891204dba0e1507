# SPDX-License-Identifier: MIT OR Apache-2.0
"""The figures that Mayfly aims at, and whether this run reached them.

Most bars are relative to something measured in the same run (the bare round trip to a program, a memcpy, the
vanilla route), so they mean the same on a slow machine and on a fast one. Routes are compared round by
round, each with the one measured beside it, and the median of those comparisons is taken: on a busy
machine that is several times steadier than comparing two medians (docs/decisions/0050).
"""

from . import kvm, process
from .bar import Bar
from .figures import floor_us, sandbox_cpu_us, throughput_ratio

__all__ = ["BARS", "judge", "floor_us", "sandbox_cpu_us", "throughput_ratio"]

#: By engine.
BARS = {"kvm": kvm.BARS, "process": process.BARS}


def judge(report: dict, engine: str) -> list[dict]:
    """The `bars` of an engine's part of a report. What this run did not measure (a quick one leaves things out) is null,
    and not met.
    """
    return [_judge(bar, report) for bar in BARS[engine]]


def _judge(bar: Bar, report: dict) -> dict:
    shown = {"name": bar.name, "key": bar.key, "bar": bar.bar}
    try:
        measured = bar.measure(report)
        if measured is None:
            raise LookupError(bar.key)
        return {**shown, "measured": measured, "met": bar.met(report, measured)}
    except (LookupError, ZeroDivisionError):
        return {**shown, "measured": None, "met": False}
