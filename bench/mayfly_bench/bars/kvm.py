# SPDX-License-Identifier: MIT OR Apache-2.0
"""The figures that Mayfly aims at, and whether this run reached them.

Most bars are relative to something measured in the same run (the bare `KVM_RUN` round trip, a memcpy, the
vanilla route), so they mean the same on a slow machine and on a fast one. Routes are compared round by
round, each with the one measured beside it, and the median of those comparisons is taken: on a busy
machine that is several times steadier than comparing two medians (docs/decisions/0050).
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .comparison import find


@dataclass(frozen=True)
class Bar:
    """One figure. `measure` takes the report and raises LookupError if the run does not have it."""

    name: str
    key: str
    bar: str
    measure: Callable[[dict], float]
    met: Callable[[dict, float], bool]


#: Of a runtime's work set.
_RESET_US_A_PAGE = 0.15
#: What another system of this kind reached by its SDK, reset after each request, of vanilla Drogon's requests/s on such
#: a machine, (thousands of requests/s, of vanilla's), and the factor by which that must be exceeded. See
#: docs/decisions/0150.
_PEER = {"node": (9.4, 54), "deno": (10.6, 54), "deno, all cores": (19.1, 106)}
_ABOVE_PEER = 1.4


def _above_peer(which: str) -> float:
    peer, vanilla = _PEER[which]
    return _ABOVE_PEER * peer / vanilla


def _micro(name: str) -> Callable[[dict], float]:
    return lambda report: report["micro"][name]


def _ratio(above: str, below: str) -> Callable[[dict], float]:
    return lambda report: report["micro"][above] / report["micro"][below]


def _call_overhead(report: dict) -> float:
    return report["micro"]["call_reset_us"] - report["micro"]["floor_us"]


def _at_most(limit: float) -> Callable[[dict, float], bool]:
    return lambda _, measured: measured <= limit


def _tenancy(name: str) -> Callable[[dict], float]:
    return lambda report: report["tenancy"][name]


def _nothing_failed(name: str, within: Callable[[float], bool]) -> Callable[[dict, float], bool]:
    """Within the bar, and no request failed: a refusal is a fast answer."""
    return lambda report, measured: within(measured) and report["tenancy_rounds"][name]["failed_requests"] == 0


def _runtime(name: str, mode: str, *keys: str) -> Callable[[dict], float]:
    """A figure of one runtime. LookupError also where the report says that there is none."""

    def measure(report: dict) -> float:
        value = report["runtimes"][name][mode]
        for key in keys:
            value = value[key]
        if value is None:
            raise LookupError(".".join((name, mode, *keys)))
        return value

    return measure


def _reset_beyond_pages(name: str, mode: str) -> Callable[[dict], float]:
    reset, pages = _runtime(name, mode, "reset_us"), _runtime(name, mode, "workset_pages")
    return lambda report: reset(report) - _RESET_US_A_PAGE * pages(report)


def _all_answered(name: str, mode: str, least: float, *load: str) -> Callable[[dict, float], bool]:
    """At least `least`, and no request failed."""
    errors = _runtime(name, mode, *load, "errors")
    return lambda report, measured: measured >= least and errors(report) == 0


def one_system_call(report: dict, measured: float) -> bool:
    """Whether the serving thread made one ioctl per request and nothing else at all.

    Calls of other threads are in the report and not in this: the watchdog's tick comes with time, not with requests.
    """
    return measured == 1 and not report["micro"]["other_syscalls"]


def sandbox_cpu_us(report: dict) -> float:
    """The server's CPU time per request that the sandbox adds, at c1 on one CPU: the median over the rounds' pairs."""
    pairs = _round_pairs(report, 1, True)
    return statistics.median(sandboxed["cpu_us"] - vanilla["cpu_us"] for vanilla, sandboxed in pairs)


def floor_us(report: dict) -> float:
    """The floor at c1 on one CPU: the median over the rounds."""
    return statistics.median(vanilla["floor_us"] for vanilla, _ in _round_pairs(report, 1, True))


def _sandbox_cpu_floors(report: dict) -> float:
    pairs = _round_pairs(report, 1, True)
    return statistics.median((sandboxed["cpu_us"] - vanilla["cpu_us"]) / vanilla["floor_us"] for vanilla, sandboxed in pairs)


def throughput_ratio(report: dict) -> float:
    """Requests per second, sandboxed over vanilla, at c8 on all cores: the median over the rounds' pairs."""
    pairs = _round_pairs(report, 8, False)
    return statistics.median(sandboxed["rps"] / vanilla["rps"] for vanilla, sandboxed in pairs)


def _round_pairs(report: dict, connections: int, pinned: bool) -> list[tuple[dict, dict]]:
    """What was measured back to back: a round of vanilla with the round of sandboxed beside it."""
    vanilla, sandboxed = (find(report["wrk"], route, connections, pinned) for route in ("vanilla", "sandboxed"))
    if vanilla is None or sandboxed is None:
        raise LookupError(f"c{connections}")
    return list(zip(vanilla["rounds"], sandboxed["rounds"], strict=True))


BARS = (
    Bar(
        "system calls of the serving thread per request, seen by strace",
        "micro.ioctls_per_request",
        "exactly 1, and no other call of that thread",
        _micro("ioctls_per_request"),
        one_system_call,
    ),
    Bar("exits per request", "micro.exits_per_request", "1", _micro("exits_per_request"), lambda _, seen: seen == 1),
    Bar(
        "call and reset above the floor, µs",
        "micro.call_reset_us - micro.floor_us",
        "at most 1.2",
        _call_overhead,
        _at_most(1.2),
    ),
    Bar(
        "reset of a page, in copies of a page",
        "micro.reset_ns_per_page / micro.memcpy_ns_per_page",
        "at most 1.3",
        _ratio("reset_ns_per_page", "memcpy_ns_per_page"),
        _at_most(1.3),
    ),
    Bar(
        "fork of a worker, in bare VM creations",
        "micro.fork_us / micro.create_vm_us",
        "at most 1.5",
        _ratio("fork_us", "create_vm_us"),
        _at_most(1.5),
    ),
    Bar(
        "private memory of an idle worker, KiB",
        "micro.worker_private_kib",
        "at most 96",
        _micro("worker_private_kib"),
        _at_most(96),
    ),
    Bar(
        "server CPU that the sandbox adds, c1 pinned, in floors",
        "(wrk[sandboxed].cpu_us - wrk[vanilla].cpu_us) / floor_us, round by round",
        "at most 1.15",
        _sandbox_cpu_floors,
        _at_most(1.15),
    ),
    Bar(
        "requests/s sandboxed / vanilla, c8",
        "wrk[sandboxed].rps / wrk[vanilla].rps, round by round",
        "at least 0.33",
        throughput_ratio,
        lambda _, measured: measured >= 0.33,
    ),
    Bar(
        "requests/s, 1,000 tenants in turn / one tenant, c8",
        "tenancy.round_robin_1000_over_1",
        "at least 0.8",
        _tenancy("round_robin_1000_over_1"),
        _nothing_failed("round_robin_1000_over_1", lambda measured: measured >= 0.8),
    ),
    Bar(
        "requests/s, counter in shared memory / hello, c8",
        "tenancy.counter_over_hello",
        "at least 0.95",
        _tenancy("counter_over_hello"),
        _nothing_failed("counter_over_hello", lambda measured: measured >= 0.95),
    ),
    Bar(
        "routing, limits and metering, added to a request, ns",
        "tenancy.overhead_ns",
        "below 300",
        _tenancy("overhead_ns"),
        lambda _, measured: measured < 300,
    ),
    Bar(
        "a tenant that is configured and never called, KiB",
        "tenancy.idle_tenant_kib",
        "below 8",
        _tenancy("idle_tenant_kib"),
        lambda _, measured: measured < 8,
    ),
    Bar(
        "rise of the p99 beside a neighbour that spins, ms",
        "tenancy.noisy_neighbour_p99_ms",
        "at most 1.2 (1.2 inline budgets), no request lost",
        _tenancy("noisy_neighbour_p99_ms"),
        _nothing_failed("noisy_neighbour_p99_ms", lambda measured: measured <= 1.2),
    ),
    Bar(
        "failures in 1,000 reloads under load",
        "tenancy.reload_failures",
        "0",
        _tenancy("reload_failures"),
        lambda report, measured: measured == 0 and report["tenancy_rounds"]["reload_failures"]["answers"] > 0,
    ),
    *(
        Bar(
            f"exits per request, {name} {words}",
            f"runtimes.{name}.{mode}.exits",
            f"at most {most}",
            _runtime(name, mode, "exits"),
            _at_most(most),
        )
        for name, mode, words, most in (
            ("deno", "sdk", "by the SDK", 3), ("node", "sdk", "by the SDK", 3), ("deno", "server", "as an unmodified server", 12),
        )
    ),
    *(
        Bar(
            f"reset of the deno worker ({mode}) beyond {_RESET_US_A_PAGE} µs a page, µs",
            f"runtimes.deno.{mode}.reset_us - {_RESET_US_A_PAGE} * runtimes.deno.{mode}.workset_pages",
            "at most 5",
            _reset_beyond_pages("deno", mode),
            _at_most(5),
        )
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"from a snapshot file to the first response, deno ({mode}), ms",
            f"runtimes.deno.{mode}.snapshot_first_response_ms",
            "at most 50",
            _runtime("deno", mode, "snapshot_first_response_ms"),
            _at_most(50),
        )
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"private memory of one further idle worker, {name} ({mode}), MiB",
            f"runtimes.{name}.{mode}.private_mib",
            f"at most {most}",
            _runtime(name, mode, "private_mib"),
            _at_most(most),
        )
        for name, most in (("deno", 3), ("node", 8))
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"requests/s / vanilla, {name} by the SDK, c1 pinned",
            f"runtimes.{name}.sdk.relative",
            f"at least {_above_peer(name):.3f}, no request lost",
            _runtime(name, "sdk", "relative"),
            _all_answered(name, "sdk", _above_peer(name)),
        )
        for name in ("node", "deno")
    ),
    Bar(
        "requests/s / vanilla, deno by the SDK, c8",
        "runtimes.deno.sdk.all_cores.relative",
        f"at least {_above_peer('deno, all cores'):.3f}, no request lost",
        _runtime("deno", "sdk", "all_cores", "relative"),
        _all_answered("deno", "sdk", _above_peer("deno, all cores"), "all_cores"),
    ),
)


def judge(report: dict) -> list[dict]:
    """The report's `bars`. What this run did not measure (a quick one leaves things out) is null, and not met."""
    return [_judge(bar, report) for bar in BARS]


def _judge(bar: Bar, report: dict) -> dict:
    shown = {"name": bar.name, "key": bar.key, "bar": bar.bar}
    try:
        measured = bar.measure(report)
        return {**shown, "measured": measured, "met": bar.met(report, measured)}
    except (LookupError, ZeroDivisionError):
        return {**shown, "measured": None, "met": False}
