# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many tenants in one server: that one costs no more among a thousand, and that none is in another's way.

`measure` returns the report's `tenancy`, one figure for each aim, and its `tenancy_rounds`, what they rest on.
"""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import micro
from ..options import Options
from ..server import Server
from . import idle, neighbour, reloads, turns
from .result import Result

#: The aims' figures, in the order of the report.
FIGURES = (
    "round_robin_1000_over_1",
    "counter_over_hello",
    "overhead_ns",
    "idle_tenant_kib",
    "noisy_neighbour_p99_ms",
    "reload_failures",
)

#: Descriptors that the server may have: a thousand tenants on two loops take five thousand.
_DESCRIPTORS = 20_000


def measure(chosen: Options, scratch: Path, loops: int, micro_runs: Sequence[dict], progress: Callable[[str], None]) -> dict:
    """Measures all of it, on a server with `loops` loop threads. `micro_runs` are those of the same run."""
    raise_descriptor_limit()

    def server(tenants: dict) -> Server:
        return Server(chosen.server, chosen.config, chosen.root, scratch, threads=loops, tenants=tenants, in_session=True)

    results = {
        **turns.measure(chosen, server, loops, progress),
        "overhead_ns": overhead(micro_runs),
        "idle_tenant_kib": idle.measure(chosen, server, progress),
        "noisy_neighbour_p99_ms": neighbour.measure(chosen, server, loops, progress),
        "reload_failures": reloads.measure(chosen, server, scratch, progress),
    }
    progress("looking up routes")
    routes = micro.routes(chosen.cli)
    return {
        "tenancy": {name: results[name].value for name in FIGURES},
        "tenancy_rounds": {**{name: result.as_report() for name, result in results.items()}, "routes": routes},
    }


def overhead(micro_runs: Sequence[dict]) -> Result:
    """What routes, limits and counters add to a request, of the micro-benchmarks' runs."""
    keys = ("overhead_ns", "overhead_equals_ns")
    return Result.median("overhead_ns", [{key: seen[key] for key in keys} for seen in micro_runs])


def raise_descriptor_limit(wanted: int = _DESCRIPTORS) -> None:
    """Lets the server, which inherits the limit, have enough descriptors for its machines, as far as the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
