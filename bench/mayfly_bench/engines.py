# SPDX-License-Identifier: MIT OR Apache-2.0
"""The engines that programs run on: which of them work here, and each one's part of a report.

A report has the figures of each under `engines`. Those of the engine that `auto` means are also at its top, where they
were when there was one engine.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError

#: In the order of the report.
NAMES = ("kvm", "process")
#: What the report calls them.
WORDS = {"kvm": "KVM", "process": "processes"}
#: What their floor is.
FLOORS = {"kvm": "bare KVM_RUN round trip", "process": "bare round trip to a process"}
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Engines:
    """The engines that are measured, and the one whose figures are also at the report's top.

    `info` is what `mayfly info --json` says.
    """

    measured: tuple[str, ...]
    main: str
    info: dict


def probe(cli: Path, only: str | None = None) -> Engines:
    """Asks which engines work here. All of them are measured, or `only` one.

    Raises BenchError with the reasons if there is none, or not that one.
    """
    info = _info(cli)
    found = info["engines"]
    working = tuple(name for name in NAMES if found.get(name, {}).get("usable") and only in (None, name))
    if not working:
        reasons = "; ".join(f"{name}: {found.get(name, {}).get('details', 'unknown')}" for name in NAMES if only in (None, name))
        raise BenchError(f"programs cannot run here, so there is nothing to compare with vanilla Drogon ({reasons})")
    auto = info.get("auto", {}).get("engine")
    return Engines(working, auto if auto in working else working[0], info)


def _info(cli: Path) -> dict:
    """Its exit status is not 0 where `auto` means no engine, and the output has the reasons nevertheless."""
    try:
        done = subprocess.run([str(cli), "info", "--json"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"no end within {_TIMEOUT_S} s: {cli} info") from error
    try:
        info = json.loads(done.stdout)
        assert isinstance(info["engines"], dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise BenchError(f"`mayfly info --json` names no engines; was it built from the same commit?\n{done.stderr.strip()}") from error
    return info


def combined(common: dict, parts: dict[str, dict], main: str) -> dict:
    """The report: what concerns all engines, the part of `main`, and the part of each."""
    return {**common, **parts[main], "engines": parts}


def views(report: dict) -> dict[str, dict]:
    """The report as each engine alone would have it. A report without engines is of KVM, the only one at its time."""
    parts = report.get("engines", {"kvm": {}})
    return {name: {**report, **part} for name, part in parts.items()}


def side_by_side(tables: dict[str, list[list[str]]], keys: int) -> list[list[str]]:
    """One table of several engines' tables: rows that agree in their first `keys` cells follow each other, and the next
    cell names the engine. Empty if all tables are."""
    present = {engine: table for engine, table in tables.items() if table}
    if not present:
        return []
    heading = next(iter(present.values()))[0]
    order = dict.fromkeys(tuple(row[:keys]) for table in present.values() for row in table[1:])
    rows = [
        [*row[:keys], engine, *row[keys:]]
        for key in order
        for engine, table in present.items()
        for row in table[1:]
        if tuple(row[:keys]) == key
    ]
    return [[*heading[:keys], "engine", *heading[keys:]], *rows]


def columns(tables: dict[str, list[list[str]]], keys: int, value: int) -> list[list[str]]:
    """One table of several engines' tables, with a column for the cell `value` of each; `keys` cells tell rows apart."""
    present = {engine: table for engine, table in tables.items() if table}
    if not present:
        return []
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for engine, table in present.items():
        for row in table[1:]:
            cells.setdefault(tuple(row[:keys]), {})[engine] = row[value]
    heading = next(iter(present.values()))[0]
    return [[*heading[:keys], *present], *([*key, *(seen.get(engine, "") for engine in present)] for key, seen in cells.items())]
