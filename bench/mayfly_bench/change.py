# SPDX-License-Identifier: MIT OR Apache-2.0
"""What changed between two reports, as distinct from noise.

A change counts where the rounds of both runs do not overlap at all. With five rounds each, two equal
programs look changed in fewer than one comparison of a hundred. Nothing is asserted about absolute times.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import summary
from .engines import views
from .errors import BenchError
from .figures import Table, load_name, loads_in_order, number

_FIGURES = (("rps", "requests/s"), ("cpu_us", "server CPU µs"), ("p99_us", "p99 µs"))
_ENOUGH_ROUNDS = 5
_SAME_HOST = ("cpu", "kernel", "kvm", "mitigations")


def main(arguments: Sequence[str]) -> int:
    """Prints the comparison. Returns 0, or 1 if a report cannot be read."""
    parser = argparse.ArgumentParser(prog="bench/compare", description="Compares two reports of bench/run.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        old, new = read(chosen.old), read(chosen.new)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if differing := [key for key in _SAME_HOST if old["host"].get(key) != new["host"].get(key)]:
        print(f"The reports are from different machines ({', '.join(differing)}): compare ratios to the floor, not times.\n")
    if (fewest := min((len(entry["rounds"]) for entry in old["wrk"] + new["wrk"]), default=0)) < _ENOUGH_ROUNDS:
        print(f"Some figures rest on {fewest} rounds: what is called changed may be noise.\n")
    print(summary.aligned(wrk_changes(old, new)))
    print()
    print(summary.aligned(bar_changes(old, new)))
    return 0


def read(path: Path) -> dict:
    """Reads a report. Raises BenchError if that is not one."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not {"host", "micro", "wrk", "bars"} <= report.keys():
            raise BenchError(f"{path} is no report of bench/run")
    except (OSError, ValueError, AttributeError) as error:
        raise BenchError(f"cannot read {path}: {error}") from error
    return report


def wrk_changes(old: dict, new: dict) -> Table:
    """Every figure of every load and engine that both reports have."""
    rows = [["load", "route", "figure", "old", "new", "change %", ""]]
    known = {(load_name(entry), name): entry for at_load in loads_in_order(old) for name, entry in at_load}
    for name, entry in (pair for at_load in loads_in_order(new) for pair in at_load):
        before = known.get((load_name(entry), name))
        for key, words in _FIGURES if before else ():
            change = f"{(entry[key] / before[key] - 1) * 100:+.1f}" if before[key] else ""
            verdict = "" if overlap(before["rounds"], entry["rounds"], key) else "changed"
            rows.append([load_name(entry), name, words, number(before[key]), number(entry[key]), change, verdict])
    return rows


def bar_changes(old: dict, new: dict) -> Table:
    """The aims of each engine in both reports."""
    rows = [["engine", "figure", "bar", "old", "new"]]
    known = {(engine, bar["key"]): bar["measured"] for engine, part in views(old).items() for bar in part["bars"]}
    for engine, part in views(new).items():
        for bar in part["bars"]:
            before = number(known.get((engine, bar["key"])))
            rows.append([engine, bar["name"], bar["bar"], before, number(bar["measured"])])
    return rows


def overlap(old: Sequence[dict], new: Sequence[dict], key: str) -> bool:
    """Whether the ranges of a figure over two sets of rounds have a value in common."""
    before, after = [round_[key] for round_ in old], [round_[key] for round_ in new]
    return min(before) <= max(after) and min(after) <= max(before)
