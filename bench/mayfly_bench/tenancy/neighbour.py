# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a tenant notices of a neighbour that spins on every loop until its limit, again and again.

The neighbour, A, is a program that never answers, with a CPU limit of two seconds; it is called over as many
connections as there are loops, twice, which Drogon deals out to the loops in turn, and again as soon as an answer
comes. Tenant B and the vanilla route have the same load in rounds with A and without: a fixed pause between requests,
so that wrk and the answers leave the processors idle most of the time, and what is measured is the wait for A and not
for each other.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .. import machine_load, wrk
from ..options import Options
from ..server import Server
from ..wrk import Load, Measured
from .result import Result

_SCRIPT = Path(__file__).with_name("paced.lua")
#: A's limit, and the pause of B's clients between an answer and the next request.
_CPU_MS = 2_000
_PAUSE_MS = 2
#: The inline budget, Mayfly's own default.
BUDGET_MS = 1.0
_ROUTES = {"B": "/b", "vanilla": "/"}
_LOAD = Load(2, 1)
#: How long A waits after a refusal, and how long its last requests may take.
_REFUSED_PAUSE_S, _DRAIN_S = 0.05, 60.0


def tenants(chosen: Options) -> dict:
    """A, which spins, and B, which answers."""
    return {
        "watch": False,
        "tenants": [
            {"name": "a", "path": "/a", "program": str(chosen.tenant("spin")), "limits": {"cpu_ms": _CPU_MS}, "boot": "start"},
            {"name": "b", "path": "/b", "program": str(chosen.program), "boot": "start"},
        ],
    }


def measure(chosen: Options, server: Callable[[dict], Server], loops: int, progress: Callable[[str], None]) -> Result:
    """The rise of the p99 of B and of the vanilla route, whichever is larger, round by round."""
    rounds = []
    with server(tenants(chosen)) as running:
        for path in ("/a", *_ROUTES.values()):
            running.get_when_booted(path)
        _load(running, 1)
        for number in range(chosen.rounds):
            progress(f"round {number + 1} of {chosen.rounds}: a noisy neighbour")
            seen: dict = {}
            for noisy in (False, True) if number % 2 == 0 else (True, False):
                if noisy:
                    with Spinner(running, 2 * loops) as spinner:
                        seen["noisy"] = _load(running, chosen.tenancy.neighbour_seconds)
                    seen["neighbour"] = spinner.answers()
                else:
                    seen["quiet"] = _load(running, chosen.tenancy.neighbour_seconds)
            rounds.append(seen | _rise(seen))
    failed = sum(seen[when][route]["errors"] for seen in rounds for when in ("quiet", "noisy") for route in _ROUTES)
    return Result.median("rise_ms", rounds, failed, budget_ms=BUDGET_MS, connections_of_a=2 * loops)


def _rise(seen: dict) -> dict:
    rises = {route: (seen["noisy"][route]["p99_us"] - seen["quiet"][route]["p99_us"]) / 1000 for route in _ROUTES}
    return {"rise_ms": max(rises.values()), **{f"rise_{route}_ms": rise for route, rise in rises.items()}}


def _load(server: Server, seconds: int) -> dict:
    """Loads all routes at once; returns what wrk saw of each, and how busy the machine was."""
    before = machine_load.now()
    with ThreadPoolExecutor(len(_ROUTES)) as pool:
        def run(path: str) -> Measured:
            return wrk.run(server.url(path), _LOAD, seconds, script=_SCRIPT, arguments=[str(_PAUSE_MS)])

        results = list(pool.map(run, _ROUTES.values()))
    used = machine_load.since(before)
    return {
        **{route: asdict(result) for route, result in zip(_ROUTES, results, strict=True)},
        "busy_percent": used.busy_s / used.total_s * 100 if used.total_s else 0.0,
        "wrk_percent": used.children_s / used.total_s * 100 if used.total_s else 0.0,
    }


class Spinner:
    """Calls A over a number of connections, again and again, until left. On leaving it waits for A's last answers."""

    def __init__(self, server: Server, connections: int):
        self._stop = threading.Event()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._spin, args=(server.port,), daemon=True) for _ in range(connections)]

    def __enter__(self) -> "Spinner":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        deadline = time.monotonic() + _DRAIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def answers(self) -> dict[str, int]:
        """How often A was answered, by status; `lost` are connections that broke."""
        with self._lock:
            return dict(self._seen)

    def _spin(self, port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=_DRAIN_S)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/a/spin")
                response = connection.getresponse()
                response.read()
                answer = str(response.status)
            except (OSError, HTTPException):
                connection.close()
                answer = "lost"
            with self._lock:
                self._seen[answer] += 1
            if answer in ("lost", "503", "429"):
                self._stop.wait(_REFUSED_PAUSE_S)
        connection.close()
