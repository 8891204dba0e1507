# SPDX-License-Identifier: MIT OR Apache-2.0
"""Vanilla against sandboxed under wrk: one server with a route for vanilla and one for each engine, in turn, round
after round.

They are measured one right after the other, vanilla between the engines, and the order is reversed from round to round,
so that a machine that slows down or a neighbour that wakes up does not favour any. Where a figure is compared with the
floor, that too is measured in every round, between the engine's route and vanilla. A figure is the median of its
rounds; every round stays in the report.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from . import cpu_time, machine_load, wrk
from .errors import BenchError
from .routes import ROUTES, SANDBOXED, VANILLA
from .server import Server
from .wrk import Load

CONNECTIONS = (1, 2, 8, 16, 32, 64)

_FIGURES = ("rps", "cpu_us", "p50_us", "p75_us", "p90_us", "p99_us")


@dataclass(frozen=True)
class Round:
    """One run of wrk, with what the server and the rest of the machine used meanwhile.

    `floor_us` is the floor as measured in the same round, if it was.
    """

    rps: float
    cpu_us: float
    p50_us: int
    p75_us: int
    p90_us: int
    p99_us: int
    max_us: int
    errors: int
    others_percent: float
    floor_us: float | None = None


def loads(cores: int, connections: Sequence[int] = CONNECTIONS) -> list[Load]:
    """The loads for a server on all cores: as many wrk threads as connections, up to the cores."""
    return [Load(count, min(count, cores)) for count in connections]


def measure(server: Server, load: Load, seconds: int, path: str, **how: Any) -> Round:
    """Runs wrk once; `how` is what `wrk.run` takes besides. Raises BenchError if the server ends meanwhile."""
    machine, before = machine_load.now(), cpu_time.of(server.pid)
    seen = wrk.run(server.url(path), load, seconds, **how)
    after, machine = cpu_time.of(server.pid), machine_load.since(machine)
    if not after.threads:
        raise BenchError(f"the server ended under load\n{server.log_tail()}")
    server_ns = after.since(before)
    return Round(
        rps=seen.rps,
        cpu_us=server_ns / seen.requests / 1000,
        p50_us=seen.p50_us,
        p75_us=seen.p75_us,
        p90_us=seen.p90_us,
        p99_us=seen.p99_us,
        max_us=seen.max_us,
        errors=seen.errors,
        others_percent=machine.others_percent(server_ns),
    )


def compare(
    server: Server,
    engines: Sequence[str],
    planned: Sequence[Load],
    rounds: int,
    seconds: int,
    progress: Callable[[str], None],
    floor: Callable[[str], float] | None = None,
) -> dict[str, list[dict]]:
    """Measures all routes at every load, and returns each engine's `wrk` entries for them. Those of vanilla are the same
    for all engines but for the floor, which is the engine's.

    `floor`, if given, is called once in every round for each engine, and returns microseconds.
    """
    sides = (VANILLA, *engines)
    seen: dict[tuple[str, Load], list[Round]] = {(side, load): [] for load in planned for side in sides}
    floors: dict[tuple[str, Load], list[float | None]] = {(engine, load): [] for load in planned for engine in engines}
    for side in sides:
        wrk.run(server.url(ROUTES[side]), planned[-1], 1)  # warm: connections, work sets, branch predictors
    for number in range(rounds):
        for load in planned:
            for side, is_floor in steps(engines, number):
                where = f"round {number + 1} of {rounds}: {side}"
                if not is_floor:
                    progress(f"{where} c{load.connections}{' pinned' if load.pinned else ''}")
                    seen[side, load].append(measure(server, load, seconds, ROUTES[side]))
                elif floor is None:
                    floors[side, load].append(None)
                else:
                    progress(f"{where}, micro-benchmarks")
                    floors[side, load].append(floor(side))
    return {engine: _entries(engine, planned, seen, floors) for engine in engines}


def steps(engines: Sequence[str], number: int) -> list[tuple[str, bool]]:
    """What a round measures, in order: a route, or (if true) an engine's floor. Vanilla is next to two engines, and each
    floor between its engine and vanilla.
    """
    first, *others = engines
    order = [(first, False), (first, True), (VANILLA, False)]
    order += [step for engine in others for step in ((engine, True), (engine, False))]
    return order if number % 2 == 0 else order[::-1]


def _entries(
    engine: str, planned: Sequence[Load], seen: dict[tuple[str, Load], list[Round]], floors: dict[tuple[str, Load], list[float | None]]
) -> list[dict]:
    return [
        entry(route, load, [replace(round_, floor_us=us) for round_, us in zip(seen[side, load], floors[engine, load], strict=True)])
        for load in planned
        for route, side in ((VANILLA, VANILLA), (SANDBOXED, engine))
    ]


def entry(route: str, load: Load, samples: Sequence[Round]) -> dict:
    """One entry of the report's `wrk`: medians over the rounds, the sum of errors, and the rounds themselves."""
    medians = {name: statistics.median(getattr(sample, name) for sample in samples) for name in _FIGURES}
    return {
        "route": route,
        "connections": load.connections,
        "threads": load.threads,
        "pinned": load.pinned,
        **medians,
        "errors": sum(sample.errors for sample in samples),
        "rounds": [asdict(sample) for sample in samples],
    }


def find(entries: Sequence[dict], route: str, connections: int, pinned: bool = False) -> dict | None:
    """The entry of one route at one load, or None if that was not measured."""
    return next(
        (
            entry
            for entry in entries
            if (entry["route"], entry["connections"], entry["pinned"]) == (route, connections, pinned)
        ),
        None,
    )
