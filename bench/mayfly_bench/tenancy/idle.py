# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a tenant weighs that is configured and never called."""

import time
from collections.abc import Callable

from .. import process
from ..options import Options
from ..server import Server
from .result import Result

_ROUNDS = 3
_CONNECTIONS = 8


def tenants(chosen: Options, count: int) -> dict:
    """A tenants file with one tenant that boots at start and `count` that boot when they are called."""

    def tenant(number: int) -> dict:
        boot = "start" if number == 0 else "first_call"
        return {"name": f"t{number}", "program": str(chosen.program), "hosts": [f"t{number}.example"], "boot": boot}

    return {"watch": False, "tenants": [tenant(number) for number in range(count + 1)]}


def measure(chosen: Options, server: Callable[[dict], Server], progress: Callable[[str], None]) -> Result:
    """Private memory of servers with many such tenants and with none, and the share of each."""
    count = chosen.tenancy.idle_tenants
    rounds = []
    for number in range(_ROUNDS):
        progress(f"round {number + 1} of {_ROUNDS}: tenants that are never called")
        seen = {"without": _memory(server, tenants(chosen, 0)), "with": _memory(server, tenants(chosen, count))}
        share = {name: (seen["with"][name] - seen["without"][name]) / count for name in ("private", "pss")}
        rounds.append({"kib": share["private"], "pss_kib": share["pss"], **seen})
    return Result.median("kib", rounds, tenants=count)


def _memory(server: Callable[[dict], Server], tenants: dict) -> dict:
    began = time.monotonic()
    with server(tenants) as running:
        started_s = round(time.monotonic() - began, 2)
        # Connections go to the loops in turn: each has its pool, and has used it.
        for _ in range(_CONNECTIONS):
            running.get_when_booted("/", "t0.example")
        return {**process.memory_kib(running.pid), "started_s": started_s}
