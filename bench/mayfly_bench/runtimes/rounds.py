# SPDX-License-Identifier: MIT OR Apache-2.0
"""One runtime under wrk: vanilla Drogon, the program without a sandbox, and on each engine the program reset after each
request and the program kept, in turn, round after round.

The sandboxed and the vanilla side are routes of one server. A side that fails is left out from then on, with its
reason.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .. import comparison, wrk
from ..comparison import Round
from ..errors import BenchError
from ..options import Options
from ..server import Server
from ..wrk import Load
from .native import Native
from .samples import Runtime, Samples

_HELLO = b"Hello World!"
#: Requests before the measurement: after them the worker's work set is in its steady state.
_FIRST_REQUESTS = 20


class Side(NamedTuple):
    """One side of the comparison."""

    #: None without a sandbox.
    engine: str | None
    mode: str
    kept: bool = False

    def __str__(self) -> str:
        on = f" on {self.engine}" if self.engine else ""
        return f"{self.mode}{', kept' if self.kept else ''}{on}"


VANILLA, NATIVE = Side(None, "vanilla"), Side(None, "native")


@dataclass
class Seen:
    """What was measured at one load: the rounds by side, equally many of each that worked; and why others failed."""

    rounds: dict[Side, list[Round]] = field(default_factory=dict)
    errors: dict[Side, str] = field(default_factory=dict)

    def fail(self, side: Side, error: BenchError) -> None:
        """Leaves a side out from now on."""
        self.rounds.pop(side, None)
        self.errors[side] = str(error)


@dataclass(frozen=True)
class _Asked:
    """The server that gets the requests, and their host."""

    server: Server | Native
    host: str | None = None


def measure(
    chosen: Options, scratch: Path, samples: Samples, runtime: Runtime, wanted: Collection[Side], loads: Sequence[Load], end: float,
    progress: Callable[[str], None],
) -> list[Seen]:
    """Measures those sides of a runtime, with their twins, at each load. After `end` there are no further rounds than the first.

    Raises BenchError if the server itself, or its vanilla route, cannot be measured.
    """
    began = time.monotonic()
    return [
        _at_load(chosen, scratch, samples, runtime, wanted, load, began + (end - began) * (number + 1) / len(loads), progress)
        for number, load in enumerate(loads)
    ]


def _at_load(
    chosen: Options, scratch: Path, samples: Samples, runtime: Runtime, wanted: Collection[Side], load: Load, end: float,
    progress: Callable[[str], None],
) -> Seen:
    sandboxed = {side: runtime.modes[side.mode].on(side.engine) for side in wanted if side.engine is not None}
    tenants = samples.tenants(list(sandboxed.values()), boot="start")
    seen = Seen()
    with contextlib.ExitStack() as stack:
        progress(f"{runtime.name}: starting")
        server = Server(chosen.server, chosen.config, chosen.root, scratch, threads=load.threads, cpu=load.cpu, tenants=tenants)
        stack.enter_context(server)
        sides = {VANILLA: _Asked(server)}
        # Also if the unmodified server is not measured in a sandbox: a program with the SDK cannot serve outside of
        # one.
        if (unmodified := runtime.modes.get("server")) is not None:
            try:
                sides[NATIVE] = _Asked(stack.enter_context(Native(samples, unmodified, scratch, load.cpu)))
            except BenchError as error:
                seen.fail(NATIVE, error)
        for side, sample in sandboxed.items():
            sides[side] = _Asked(server, sample.host)
            if sample.kept_host is not None:
                sides[side._replace(kept=True)] = _Asked(server, sample.kept_host)
        _warm(sides, load, seen, progress, runtime.name)
        seen.rounds = {name: [] for name in sides if name not in seen.errors}
        for number in range(chosen.runtimes.rounds):
            if number and time.monotonic() > end:
                break
            _round(sides, load, chosen.runtimes.seconds, number, seen, lambda what: progress(f"{runtime.name}, {what}"))
    return seen


def _warm(sides: dict[Side, _Asked], load: Load, seen: Seen, progress: Callable[[str], None], name: str) -> None:
    """Requests each side's page some times and checks it: a wrong answer may be a fast one."""
    for side, asked in sides.items():
        progress(f"{name}, {side}: first requests")
        try:
            for number in range(_FIRST_REQUESTS):
                page = _first(asked) if number == 0 else asked.server.get("/", asked.host)
                if page.status != 200 or (side != VANILLA and page.body != _HELLO):
                    raise BenchError(f"it answers {page.status} and {page.body[:200]!r}")
            if side == NATIVE:
                # Warms up its compiler, as the warm-up before a freeze does.
                wrk.run(asked.server.url("/"), load, 1)
        except BenchError as error:
            _only_if_alive(sides, side, error)
            seen.fail(side, error)


def _first(asked: _Asked):
    return asked.server.get_when_booted("/", asked.host) if isinstance(asked.server, Server) else asked.server.get("/")


def _round(sides: dict[Side, _Asked], load: Load, seconds: int, number: int, seen: Seen, progress: Callable[[str], None]) -> None:
    """All sides once; the order is reversed from round to round."""
    order = list(seen.rounds) if number % 2 == 0 else list(reversed(seen.rounds))
    for side in order:
        progress(f"round {number + 1}: {side} c{load.connections}{' pinned' if load.pinned else ''}")
        try:
            seen.rounds[side].append(comparison.measure(sides[side].server, load, seconds, "/", host=sides[side].host))
        except BenchError as error:
            _only_if_alive(sides, side, error)
            seen.fail(side, error)


def _only_if_alive(sides: dict[Side, _Asked], side: Side, error: BenchError) -> None:
    """Raises the error if it concerns all: the vanilla route failed, or does so now."""
    if side == VANILLA:
        raise error
    try:
        sides[VANILLA].server.get("/")
    except BenchError as dead:
        raise BenchError(f"{side}: {error}") from dead
