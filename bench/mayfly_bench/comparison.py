# SPDX-License-Identifier: MIT OR Apache-2.0
"""Vanilla against sandboxed under wrk: both routes of one server, in turn, round after round.

The two are measured one right after the other and change places from round to round, so that a
machine that slows down or a neighbour that wakes up does not favour either. Where a figure is compared
with the floor, that too is measured in every round, between the two. A figure is the median of its
rounds; every round stays in the report.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from . import cpu_time, machine_load, wrk
from .errors import BenchError
from .server import Server
from .wrk import Load

#: What is compared: the name in the report and the sample server's route.
ROUTES = {"vanilla": "/", "sandboxed": "/z"}

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
    machine, before = machine_load.now(), cpu_time.of_threads(server.pid)
    seen = wrk.run(server.url(path), load, seconds, **how)
    after, machine = cpu_time.of_threads(server.pid), machine_load.since(machine)
    if not after:
        raise BenchError(f"the server ended under load\n{server.log_tail()}")
    server_ns = cpu_time.used_ns(before, after)
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
    planned: Sequence[Load],
    rounds: int,
    seconds: int,
    progress: Callable[[str], None],
    floor: Callable[[], float] | None = None,
) -> list[dict]:
    """Measures both routes at every load, and returns the report's `wrk` entries for them.

    `floor`, if given, is called between the two routes of every round, and returns microseconds.
    """
    seen: dict[tuple[str, Load], list[Round]] = {(route, load): [] for load in planned for route in ROUTES}
    for path in ROUTES.values():
        wrk.run(server.url(path), planned[-1], 1)  # warm: connections, work sets, branch predictors
    for number in range(rounds):
        for load in planned:
            first, second = list(ROUTES) if number % 2 == 0 else list(reversed(ROUTES))
            pair = {}
            for route in (first, second):
                progress(f"round {number + 1} of {rounds}: {route} c{load.connections}{' pinned' if load.pinned else ''}")
                pair[route] = measure(server, load, seconds, ROUTES[route])
                if floor is not None and route == first:
                    progress(f"round {number + 1} of {rounds}: micro-benchmarks")
                    floor_us = floor()
            for route, sample in pair.items():
                seen[route, load].append(replace(sample, floor_us=floor_us) if floor is not None else sample)
    return [entry(route, load, samples) for (route, load), samples in seen.items()]


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
