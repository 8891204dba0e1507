# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many tenants in one server: that one costs no more among a thousand, and that none is in another's way.

`measure` returns, for each engine, the report's `tenancy`, one figure for each aim, and its `tenancy_rounds`, what they
rest on.
"""

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def measure(
    chosen: Options, scratch: Path, loops: int, micro_runs: dict[str, list[dict]], progress: Callable[[str], None]
) -> dict[str, dict]:
    """Measures all of it on each engine, on servers with `loops` loop threads: one figure on every engine before the next.
    `micro_runs` are those of the same run, by engine.
    """
    raise_descriptor_limit()
    results: dict[str, dict[str, Result]] = {engine: {} for engine in micro_runs}
    for part in (_turns, _overhead, _idle, _neighbour, _reloads):
        for engine, runs in micro_runs.items():
            bench = _Bench(chosen, scratch, engine, loops, runs, lambda what, engine=engine: progress(f"{engine}: {what}"))
            results[engine] |= part(bench)
    progress("looking up routes")
    routes = micro.routes(chosen.cli)
    return {
        engine: {
            "tenancy": {name: own[name].value for name in FIGURES},
            "tenancy_rounds": {**{name: result.as_report() for name, result in own.items()}, "routes": routes},
        }
        for engine, own in results.items()
    }


@dataclass(frozen=True)
class _Bench:
    """What each part needs."""

    chosen: Options
    scratch: Path
    engine: str
    loops: int
    micro_runs: Sequence[dict]
    progress: Callable[[str], None]

    def server(self, tenants: dict) -> Server:
        """A server with these tenants, all on the engine."""
        return Server(
            self.chosen.server, self.chosen.config, self.chosen.root, self.scratch, threads=self.loops,
            tenants={"engine": self.engine, **tenants}, in_session=True,
        )


def _turns(bench: _Bench) -> dict[str, Result]:
    return turns.measure(bench.chosen, bench.server, bench.engine, bench.loops, bench.progress)


def _overhead(bench: _Bench) -> dict[str, Result]:
    return {"overhead_ns": overhead(bench.micro_runs)}


def _idle(bench: _Bench) -> dict[str, Result]:
    return {"idle_tenant_kib": idle.measure(bench.chosen, bench.server, bench.progress)}


def _neighbour(bench: _Bench) -> dict[str, Result]:
    return {"noisy_neighbour_p99_ms": neighbour.measure(bench.chosen, bench.server, bench.loops, bench.progress)}


def _reloads(bench: _Bench) -> dict[str, Result]:
    return {"reload_failures": reloads.measure(bench.chosen, bench.server, bench.scratch, bench.progress)}


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
