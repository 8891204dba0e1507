# SPDX-License-Identifier: MIT OR Apache-2.0
"""What `bench/run` takes on its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .comparison import CONNECTIONS
from .engines import NAMES

_TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Tenancy:
    """How much of each there is where many tenants are measured."""

    tenants: int = 1_000
    idle_tenants: int = 10_000
    reloads: int = 1_000
    neighbour_seconds: int = 3


@dataclass(frozen=True)
class Runtimes:
    """How long each of the runtimes is measured: calls without HTTP, then rounds of wrk, as many as the limit for all
    leaves time for. The limit is for one engine; each further one adds half of it.
    """

    requests: int = 5_000
    call_seconds: int = 8
    rounds: int = 3
    seconds: int = 1
    limit_s: int = 240

    def limit_for(self, engines: int) -> float:
        """The limit for a number of engines, which share the rounds of what is not sandboxed."""
        return self.limit_s * (1 + engines) / 2


#: Enough to see that all works.
QUICK_RUNTIMES = Runtimes(requests=500, call_seconds=2, rounds=1)
QUICK_TENANCY = Tenancy(tenants=20, idle_tenants=500, reloads=50, neighbour_seconds=2)


@dataclass(frozen=True)
class Options:
    """One run: where things are, and how long to measure."""

    build: Path
    config: Path
    out: Path
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    requests: int
    strace_requests: int
    tenancy: Tenancy
    runtimes: Runtimes
    runtimes_file: Path
    only: str | None = None
    engine: str | None = None
    root: Path = _TOP

    @property
    def server(self) -> Path:
        """The server's program."""
        return self.build / "bin" / "mayfly-server"

    @property
    def cli(self) -> Path:
        """The command-line program that holds the micro-benchmarks."""
        return self.build / "bin" / "mayfly"

    @property
    def program(self) -> Path:
        """The tenant of the micro-benchmarks."""
        return self.tenant("hello")

    @property
    def many_pages(self) -> Path:
        """The tenant that changes enough pages in a request for one page's share of a reset to be measured."""
        return self.tenant("workset")

    def tenant(self, name: str) -> Path:
        """The program of a sample tenant."""
        return self.build / "tenants" / name / name


def parse(arguments: Sequence[str]) -> Options:
    """Reads the command line; prints help or what is wrong with it, and ends the process, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Compares vanilla Drogon and sandboxed requests with wrk, runs the micro-benchmarks, and "
        "writes report.json, report.html and report.md.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round of c1 and c8: a check, not a measurement")
    parser.add_argument("--rounds", type=_positive, help="rounds of wrk per route and load (default 5, quick 1)")
    parser.add_argument("--seconds", type=_positive, help="length of a round (default 2, quick 1)")
    parser.add_argument("--only", choices=("runtimes",), help="measure one part of the report alone")
    parser.add_argument("--engine", choices=NAMES, help="measure one engine alone (default: each one that works here)")
    parser.add_argument("--build", type=Path, default=_TOP / "build", help="the build directory (default build)")
    parser.add_argument(
        "--config",
        type=Path,
        default=_TOP / "drogon-plugin" / "server" / "mayfly.json",
        help="the server's configuration; listeners and thread count are replaced",
    )
    parser.add_argument(
        "--runtimes",
        type=Path,
        default=_TOP / "drogon-plugin" / "server" / "runtimes.json",
        help="the tenants file with the programs of other runtimes",
    )
    parser.add_argument("--out", type=Path, default=_TOP / "bench" / "out", help="where to write (default bench/out)")
    seen = parser.parse_args(arguments)
    return Options(
        build=seen.build.resolve(),
        config=seen.config.resolve(),
        out=seen.out.resolve(),
        rounds=seen.rounds or (1 if seen.quick else 5),
        seconds=seen.seconds or (1 if seen.quick else 2),
        connections=(1, 8) if seen.quick else CONNECTIONS,
        requests=2_000 if seen.quick else 20_000,
        strace_requests=1_000 if seen.quick else 10_000,
        tenancy=QUICK_TENANCY if seen.quick else Tenancy(),
        runtimes=QUICK_RUNTIMES if seen.quick else Runtimes(),
        runtimes_file=seen.runtimes.resolve(),
        only=seen.only,
        engine=seen.engine,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
