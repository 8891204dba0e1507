# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the report says of one runtime in one mode."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict

from ..comparison import Round
from ..errors import BenchError
from ..wrk import Load
from .rounds import NATIVE, VANILLA, Seen, Side

_REASON_CHARACTERS = 600
_MIB = 1024
#: Figures of `mayfly bench` that the entry has as they are.
_AS_THEY_ARE = ("floor_us", "call_us", "reset_us", "call_reset_us", "workset_pages", "boot_ms", "fork_us", "snapshot_mib", "requests")


def failure(error: BenchError | str) -> dict:
    """The entry of what could not be measured: the end of the reason, where a program's own words stand last."""
    text = str(error).strip()
    return {"error": text if len(text) <= _REASON_CHARACTERS else f"… {text[-_REASON_CHARACTERS:]}"}


def entry(side: Side, called: dict, seen: Sequence[Seen], loads: Sequence[Load]) -> dict:
    """The entry of one mode on one engine, from `mayfly bench` and what was seen at both loads, the pinned one first."""
    pinned, all_cores = (_load(side, at_load, load) for at_load, load in zip(seen, loads, strict=True))
    served = called["worker_served_private_kib"]
    return {
        "exits": called["exits_per_request"],
        **pinned,
        "call_cpu_us": called["cpu_us"],
        **{key: called[key] for key in _AS_THEY_ARE},
        # Of an idle worker; it has at times served before it is idle.
        "private_mib": max(called["worker_private_kib"], served) / _MIB,
        "private_forked_mib": called["worker_private_kib"] / _MIB,
        "snapshot_first_response_ms": called.get("snapshot_first_response_ms"),
        "all_cores": all_cores,
    }


def _load(own_side: Side, seen: Seen, load: Load) -> dict:
    """The figures of one load: medians, and `relative` the median of the rounds' ratios. Or why there are none."""
    if own_side in seen.errors:
        return failure(seen.errors[own_side])
    own, vanilla = seen.rounds[own_side], seen.rounds[VANILLA]
    sides = {"native": NATIVE, "kept": own_side._replace(kept=True)}
    found = {name: seen.rounds[side] for name, side in sides.items() if seen.rounds.get(side)}
    return {
        "connections": load.connections,
        "threads": load.threads,
        "pinned": load.pinned,
        "rps": _median(own, "rps"),
        **{f"{name}_rps": _median(found[name], "rps") if name in found else None for name in sides},
        "vanilla_rps": _median(vanilla, "rps"),
        "relative": statistics.median(a.rps / b.rps for a, b in zip(own, vanilla, strict=True)),
        "p50_us": _median(own, "p50_us"),
        "p99_us": _median(own, "p99_us"),
        "cpu_us": _median(own, "cpu_us"),
        "vanilla_cpu_us": _median(vanilla, "cpu_us"),
        "errors": sum(round_.errors for round_ in (*own, *vanilla, *(seen for rounds in found.values() for seen in rounds))),
        **{f"{name}_error": seen.errors[side] for name, side in sides.items() if side in seen.errors},
        "rounds": {name: [asdict(round_) for round_ in rounds] for name, rounds in {"own": own, "vanilla": vanilla, **found}.items()},
    }


def _median(rounds: Sequence[Round], key: str) -> float:
    return statistics.median(getattr(round_, key) for round_ in rounds)
