# SPDX-License-Identifier: MIT OR Apache-2.0
"""The aims of KVM."""

from collections.abc import Callable

from . import both
from .bar import Bar
from .figures import (
    all_answered, at_least, at_most, call_overhead, micro, nothing_failed, ratio, runtime, sandbox_cpu_floors,
    system_calls, tenancy, throughput_ratio,
)

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


def _reset_beyond_pages(name: str, mode: str) -> Callable[[dict], float]:
    reset, pages = runtime(name, mode, "reset_us"), runtime(name, mode, "workset_pages")
    return lambda report: reset(report) - _RESET_US_A_PAGE * pages(report)


BARS = (
    Bar(
        "system calls of the serving thread per request, seen by strace",
        "micro.ioctls_per_request",
        "exactly 1, and no other call of that thread",
        micro("ioctls_per_request"),
        system_calls(1),
    ),
    Bar("exits per request", "micro.exits_per_request", "1", micro("exits_per_request"), lambda _, seen: seen == 1),
    Bar(
        "call and reset above the floor, µs",
        "micro.call_reset_us - micro.floor_us",
        "at most 1.2",
        call_overhead,
        at_most(1.2),
    ),
    Bar(
        "reset of a page, in copies of a page",
        "micro.reset_ns_per_page / micro.memcpy_ns_per_page",
        "at most 1.3",
        ratio("reset_ns_per_page", "memcpy_ns_per_page"),
        at_most(1.3),
    ),
    Bar(
        "fork of a worker, in bare VM creations",
        "micro.fork_us / micro.create_vm_us",
        "at most 1.5",
        ratio("fork_us", "create_vm_us"),
        at_most(1.5),
    ),
    Bar(
        "private memory of an idle worker, KiB",
        "micro.worker_private_kib",
        "at most 96",
        micro("worker_private_kib"),
        at_most(96),
    ),
    Bar(
        "server CPU that the sandbox adds, c1 pinned, in floors",
        "(wrk[sandboxed].cpu_us - wrk[vanilla].cpu_us) / floor_us, round by round",
        "at most 1.15",
        sandbox_cpu_floors,
        at_most(1.15),
    ),
    Bar(
        "requests/s sandboxed / vanilla, c8",
        "wrk[sandboxed].rps / wrk[vanilla].rps, round by round",
        "at least 0.33",
        throughput_ratio,
        at_least(0.33),
    ),
    Bar(
        "requests/s, 1,000 tenants in turn / one tenant, c8",
        "tenancy.round_robin_1000_over_1",
        "at least 0.8",
        tenancy("round_robin_1000_over_1"),
        nothing_failed("round_robin_1000_over_1", lambda measured: measured >= 0.8),
    ),
    Bar(
        "requests/s, counter in shared memory / hello, c8",
        "tenancy.counter_over_hello",
        "at least 0.95",
        tenancy("counter_over_hello"),
        nothing_failed("counter_over_hello", lambda measured: measured >= 0.95),
    ),
    Bar(
        "routing, limits and metering, added to a request, ns",
        "tenancy.overhead_ns",
        "below 300",
        tenancy("overhead_ns"),
        lambda _, measured: measured < 300,
    ),
    Bar(
        "a tenant that is configured and never called, KiB",
        "tenancy.idle_tenant_kib",
        "below 8",
        tenancy("idle_tenant_kib"),
        lambda _, measured: measured < 8,
    ),
    *both.BARS,
    *(
        Bar(
            f"exits per request, {name} {words}",
            f"runtimes.{name}.{mode}.exits",
            f"at most {most}",
            runtime(name, mode, "exits"),
            at_most(most),
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
            at_most(5),
        )
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"from a snapshot file to the first response, deno ({mode}), ms",
            f"runtimes.deno.{mode}.snapshot_first_response_ms",
            "at most 50",
            runtime("deno", mode, "snapshot_first_response_ms"),
            at_most(50),
        )
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"private memory of one further idle worker, {name} ({mode}), MiB",
            f"runtimes.{name}.{mode}.private_mib",
            f"at most {most}",
            runtime(name, mode, "private_mib"),
            at_most(most),
        )
        for name, most in (("deno", 3), ("node", 8))
        for mode in ("sdk", "server")
    ),
    *(
        Bar(
            f"requests/s / vanilla, {name} by the SDK, c1 pinned",
            f"runtimes.{name}.sdk.relative",
            f"at least {_above_peer(name):.3f}, no request lost",
            runtime(name, "sdk", "relative"),
            all_answered(name, "sdk", _above_peer(name)),
        )
        for name in ("node", "deno")
    ),
    Bar(
        "requests/s / vanilla, deno by the SDK, c8",
        "runtimes.deno.sdk.all_cores.relative",
        f"at least {_above_peer('deno, all cores'):.3f}, no request lost",
        runtime("deno", "sdk", "all_cores", "relative"),
        all_answered("deno", "sdk", _above_peer("deno, all cores"), "all_cores"),
    ),
)
