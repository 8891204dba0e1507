# SPDX-License-Identifier: MIT OR Apache-2.0
"""Requests/s of two loads of one server, in turns: a thousand tenants against one, a program with shared memory against
one without, and a worker that keeps its state against one that is reset."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import comparison, process, wrk
from ..comparison import Round
from ..errors import BenchError
from ..options import Options
from ..server import Server
from ..wrk import Load
from .result import Result

_SCRIPT = Path(__file__).with_name("tenants.lua")
_HOST = "test.com"
_WARM_S = 120.0
#: Other tenants of the server with the thousand: hello, counter, and visits twice.
_OTHERS = 4

Side = Callable[[Server, int], Round]


def tenants(chosen: Options) -> dict:
    """The tenants file: as many tenants with hello as the options say, and the pairs that are compared."""
    many = [_tenant(f"t{number}", chosen.program, path=f"/t/{number}") for number in range(chosen.tenancy.tenants)]
    visits = chosen.tenant("visits")
    others = [
        _tenant("hello", chosen.program, path="/hello"),
        _tenant("counter", chosen.tenant("counter"), path="/counter", shared_memory={"kib": 4}),
        _tenant("ephemeral", visits, path="/visits"),
        _tenant("stateful", visits, hosts=[_HOST], ephemeral=False),
    ]
    return {"watch": False, "tenants": [*others, *many]}


def _tenant(name: str, program: Path, **more: object) -> dict:
    return {"name": name, "program": str(program), "boot": "start", **more}


def measure(
    chosen: Options, server: Callable[[dict], Server], engine: str, loops: int, progress: Callable[[str], None]
) -> dict[str, Result]:
    """All three comparisons, on one server."""
    full, single = Load(8, min(8, loops)), Load(1, 1)
    progress("starting a server with many tenants")
    began = time.monotonic()
    with server(tenants(chosen)) as running:
        listening_s = time.monotonic() - began
        wait_for_workers(running, engine, (chosen.tenancy.tenants + _OTHERS) * loops)
        workers_s = time.monotonic() - began
        check_pages(running)
        progress("calling every tenant for the first time")
        warm(running, chosen.tenancy.tenants, loops)
        warm_s = time.monotonic() - began
        start = {
            "tenants": chosen.tenancy.tenants, "listening_s": round(listening_s, 2), "all_workers_s": round(workers_s, 2),
            "all_called_s": round(warm_s, 2),
        }

        def in_turn(count: int) -> Side:
            arguments = [str(count)]
            return lambda server, seconds: comparison.measure(server, full, seconds, "/t/0", script=_SCRIPT, arguments=arguments)

        def path(path: str, load: Load, host: str | None = None) -> Side:
            return lambda server, seconds: comparison.measure(server, load, seconds, path, host=host)

        def compare(words: str, above: Side, below: Side, seconds: int = chosen.seconds, **more: object) -> Result:
            return compare_sides(running, words, above, below, chosen.rounds, seconds, progress, **more)

        return {
            "round_robin_1000_over_1": compare("tenants in turn", in_turn(chosen.tenancy.tenants), in_turn(1), start=start),
            "counter_over_hello": compare("shared memory", path("/counter", full), path("/hello", full)),
            "stateful_over_ephemeral": compare("state", path("/", single, _HOST), path("/visits", single), 1),
        }


def compare_sides(
    server: Server, words: str, above: Side, below: Side, rounds: int, seconds: int, progress: Callable[[str], None], **more: object
) -> Result:
    """Requests/s of `above` over those of `below`, round by round; which is first changes from round to round."""
    for side in (above, below):
        side(server, 1)  # warm
    seen = []
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}: {words}")
        pair = {}
        for name, side in (("above", above), ("below", below)) if number % 2 == 0 else (("below", below), ("above", above)):
            pair[name] = side(server, seconds)
        ratio = pair["above"].rps / pair["below"].rps
        seen.append({"ratio": ratio, **{name: asdict(round_) for name, round_ in pair.items()}})
    failed = sum(pair[name]["errors"] for pair in seen for name in ("above", "below"))
    return Result.median("ratio", seen, failed, **more)


def wait_for_workers(server: Server, engine: str, wanted: int) -> None:
    """Waits until every loop has a worker of every tenant. Raises BenchError if that never comes."""
    deadline = time.monotonic() + _WARM_S
    while (seen := process.workers(server.pid, engine)) < wanted:
        if time.monotonic() > deadline:
            raise BenchError(f"the server has {seen} workers after {_WARM_S:.0f} s, not {wanted}\n{server.log_tail()}")
        time.sleep(0.1)


def warm(server: Server, tenants: int, loops: int, seconds: int = 2) -> None:
    """Calls every tenant on every loop until that gets no faster: a worker's first call writes pages that it shared
    until then, for which the kernel asks every virtual machine of the process, and that is milliseconds where there are
    thousands.
    """
    asked, last, deadline = 0, 0.0, time.monotonic() + _WARM_S
    while time.monotonic() < deadline:
        arguments = [str(tenants), str(asked // loops)]
        seen = wrk.run(server.url("/t/0"), Load(loops, loops), seconds, script=_SCRIPT, arguments=arguments)
        asked += seen.requests
        if asked >= 3 * tenants * loops and seen.rps < last * 1.1:
            return
        last = seen.rps


def check_pages(server: Server) -> None:
    """Checks that each side of a comparison answers what it should; a wrong answer may be a quick one.

    Raises BenchError that names the side.
    """
    for _ in range(3):
        _check("/t/0", server.get_when_booted("/t/0"), b"Hello World!")
        _check("/hello", server.get_when_booted("/hello"), b"Hello World!")
        _check("/visits", server.get_when_booted("/visits"), b"visit 1\n")
    before = _number(server.get_when_booted("/counter").body)
    if (after := _number(server.get("/counter").body)) != before + 1:
        raise BenchError(f"/counter does not count: {after} after {before}")
    # Any loop may take a connection, and each has its own worker.
    if max(_number(server.get_when_booted("/", _HOST).body) for _ in range(8)) < 2:
        raise BenchError(f"http://{_HOST}/ keeps no state")


def _check(path: str, page, body: bytes) -> None:
    if (page.status, page.body) != (200, body):
        raise BenchError(f"{path} answers {page.status} and {page.body[:80]!r}")


def _number(body: bytes) -> int:
    """The number in a page of words."""
    found = next((word for word in body.split() if word.isdigit()), None)
    if found is None:
        raise BenchError(f"no number in {body[:80]!r}")
    return int(found)
