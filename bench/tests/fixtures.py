# SPDX-License-Identifier: MIT OR Apache-2.0
"""What several tests need: the fake build tree, and a small complete report."""

from dataclasses import replace
from pathlib import Path

from mayfly_bench import bars, comparison, engines
from mayfly_bench.comparison import Round
from mayfly_bench.options import Options, Runtimes, Tenancy
from mayfly_bench.runtimes import entries, rounds
from mayfly_bench.runtimes.rounds import Side
from mayfly_bench.tenancy.result import Result
from mayfly_bench.wrk import Load

FAKE = Path(__file__).with_name("fake")


def fake_options(out: Path) -> Options:
    """The shortest run there is, of the fake programs."""
    return Options(
        build=FAKE, config=FAKE / "server.json", out=out, rounds=1, seconds=1, connections=(1, 8),
        requests=100, strace_requests=200, tenancy=Tenancy(tenants=5, idle_tenants=20, reloads=20, neighbour_seconds=1),
        runtimes=Runtimes(requests=100, call_seconds=1, rounds=1), runtimes_file=FAKE / "runtimes.json",
    )


def sample(rps: float, cpu_us: float) -> Round:
    """One round with plausible figures."""
    return Round(rps, cpu_us, 20, 22, 25, 90, 400, 0, 1.5, floor_us=20.0)


def tenancy() -> dict:
    """The report's part on many tenants, of a fake run that meets every aim."""
    side = {"rps": 20_000.0, "errors": 0}
    load = {"B": {"p99_us": 300, "errors": 0}, "vanilla": {"p99_us": 200, "errors": 0}, "busy_percent": 20.0}
    memory = {"private": 20_480, "started_s": 0.5}
    results = {
        "round_robin_1000_over_1": Result.median(
            "ratio", [{"ratio": ratio, "above": side, "below": side} for ratio in (0.9, 0.95)], 0,
            start={"tenants": 1_000, "listening_s": 1.5, "all_workers_s": 4.0, "all_called_s": 9.0},
        ),
        "counter_over_hello": Result.median("ratio", [{"ratio": 0.99, "above": side, "below": side}]),
        "stateful_over_ephemeral": Result.median("ratio", [{"ratio": 1.01, "above": side, "below": side}]),
        "overhead_ns": Result.median("overhead_ns", [{"overhead_ns": 150.0, "overhead_equals_ns": 5.0}]),
        "idle_tenant_kib": Result.median("kib", [{"kib": 3.0, "with": memory, "without": memory}], tenants=10_000),
        "noisy_neighbour_p99_ms": Result.median("rise_ms", [{"rise_ms": 0.4, "quiet": load, "noisy": load, "neighbour": {"504": 4}}]),
        "reload_failures": Result(
            0, [0], [], 0,
            {
                "reloads": 1_000, "seconds": 12.0, "answers": 50_000, "counts": {"mixed": 0},
                "pss_kib": [30_000, 30_100], "descriptors": [60, 60],
            },
        ),
    }
    table = {"one_ns": 15.0, "many_ns": 20.0, "many_in_turn_ns": 90.0}
    return {
        "tenancy": {name: result.value for name, result in results.items() if name != "stateful_over_ephemeral"},
        "tenancy_rounds": {
            **{name: result.as_report() for name, result in results.items()}, "routes": {"by_path": table, "by_host": table},
        },
    }


def called() -> dict:
    """What `mayfly bench` prints of a runtime's tenant."""
    return {
        "exits_per_request": 1, "floor_us": 20.0, "call_us": 60.0, "reset_us": 25.0, "call_reset_us": 85.0, "cpu_us": 86.0,
        "workset_pages": 150, "boot_ms": 300.0, "fork_us": 900.0, "snapshot_mib": 40.0, "requests": 1_000,
        "worker_private_kib": 1_024, "worker_served_private_kib": 2_048, "snapshot_first_response_ms": 20.0,
    }


def runtimes(engine: str = "kvm") -> dict:
    """An engine's part on runtimes, of a fake run that meets every aim."""
    loads = [Load(1, 1, cpu=0), Load(8, 2)]

    def modes(*names: str) -> dict:
        sides = {rounds.VANILLA: 50_000, rounds.NATIVE: 30_000}
        sides |= {Side(engine, name): {"kvm": 20_000, "process": 30_000}[engine] for name in names}
        sides |= {Side(engine, name, kept=True): 25_000 for name in names}
        seen = rounds.Seen({side: [sample(rps, 20.0)] * 2 for side, rps in sides.items()})
        known = {"version": "1.2.3", "tenant": "t"}
        return {name: known | entries.entry(Side(engine, name), called(), [seen, seen], loads) for name in names}

    return {"runtimes": {"deno": modes("sdk", "server"), "node": modes("sdk", "server"), "rust": modes("server"), "c": modes("server")}}


def part(engine: str) -> dict:
    """An engine's part of a report of a fake run that meets every aim."""
    loads = [Load(1, 1), Load(8, 2), Load(1, 1, cpu=0)]
    sandboxed = {"kvm": sample(40_000, 29.0), "process": sample(80_000, 16.0)}[engine]
    floor_us = {"kvm": 20.0, "process": 3.5}[engine]
    routes = {"vanilla": sample(100_000, 9.0), "sandboxed": sandboxed}
    routes = {route: replace(round_, floor_us=floor_us) for route, round_ in routes.items()}
    seen = {
        "micro": {
            "floor_us": floor_us, "call_reset_us": floor_us + 1.0, "exits_per_request": 1, "reset_ns_per_page": 40.0,
            "memcpy_ns_per_page": 35.0, "fork_us": {"kvm": 500.0, "process": 200.0}[engine], "create_vm_us": 400.0,
            "worker_private_kib": 80, "worker_total_kib": 100.0, "worker_served_total_kib": 140.0,
            "ioctls_per_request": {"kvm": 1.0, "process": 2.0}[engine], "other_syscalls": {}, "background_syscalls": {},
            "strace_requests": 10_000, "latency_us": {"p50": 21.0},
        },
        "wrk": [comparison.entry(route, load, [round_, round_]) for load in loads for route, round_ in routes.items()],
        **runtimes(engine),
        **tenancy(),
    }
    return {**seen, "bars": bars.judge(seen, engine)}


def report(*measured: str) -> dict:
    """A report of a fake run that meets every aim, of KVM if no engines are named."""
    common = {
        "host": {
            "cpu": "A <CPU> & more", "cores": 2, "kernel": "6.18", "kvm": "paging",
            "mitigations": {"spectre_v2": "Mitigation; Retpolines"}, "drogon": "1.9.13", "allocator": "glibc 2.36 malloc",
        },
        "run": {
            "started": "2026-01-01T00:00:00+00:00", "minutes": 3.0, "commit": "0123456789ab", "rounds": 2,
            "seconds_per_round": 2, "load_before": 0.1, "priority": "nice 0", "page_bytes": 90,
        },
    }
    if not measured:
        return {**common, **part("kvm")}
    return engines.combined(common, {engine: part(engine) for engine in measured}, measured[-1])
