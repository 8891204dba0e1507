# SPDX-License-Identifier: MIT OR Apache-2.0
"""The aims of processes."""

from . import both
from .bar import Bar
from .figures import (
    all_answered, at_least, at_most, call_overhead, micro, nothing_failed, runtime, sandbox_cpu_us, system_calls,
    tenancy, throughput_ratio,
)

#: Of vanilla's requests/s at one connection on one CPU, by runtime and mode.
_OF_VANILLA = (
    ("deno", "sdk", "deno by the SDK", 0.52),
    ("node", "sdk", "node by the SDK", 0.50),
    ("deno", "server", "deno as an unmodified server", 0.30),
    ("node", "server", "node as an unmodified server", 0.17),
    ("rust", "server", "rust (axum) as an unmodified server", 0.38),
)

BARS = (
    Bar(
        "system calls of the serving thread per request, seen by strace",
        "micro.ioctls_per_request",
        "exactly 2, and no other call of that thread",
        micro("ioctls_per_request"),
        system_calls(2),
    ),
    Bar(
        "call and reset above the floor, µs",
        "micro.call_reset_us - micro.floor_us",
        "at most 2.0",
        call_overhead,
        at_most(2.0),
    ),
    Bar("fork of a worker, µs", "micro.fork_us", "at most 250", micro("fork_us"), at_most(250)),
    Bar(
        "memory of an idle worker that has served, with the kernel's, KiB",
        "micro.worker_served_total_kib",
        "at most 192",
        micro("worker_served_total_kib"),
        at_most(192),
    ),
    Bar(
        "server CPU that the sandbox adds, c1 pinned, with the stubs', µs",
        "wrk[sandboxed].cpu_us - wrk[vanilla].cpu_us, round by round",
        "at most 7.5",
        sandbox_cpu_us,
        at_most(7.5),
    ),
    Bar(
        "requests/s sandboxed / vanilla, c1 pinned",
        "wrk[sandboxed].rps / wrk[vanilla].rps, c1 pinned, round by round",
        "at least 0.72",
        lambda report: throughput_ratio(report, 1, pinned=True),
        at_least(0.72),
    ),
    Bar(
        "requests/s sandboxed / vanilla, c8",
        "wrk[sandboxed].rps / wrk[vanilla].rps, round by round",
        "at least 0.66",
        throughput_ratio,
        at_least(0.66),
    ),
    Bar(
        "requests/s, 1,000 tenants in turn / one tenant, c8",
        "tenancy.round_robin_1000_over_1",
        "at least 0.7",
        tenancy("round_robin_1000_over_1"),
        nothing_failed("round_robin_1000_over_1", lambda measured: measured >= 0.7),
    ),
    *both.BARS,
    *(
        Bar(
            f"requests/s / vanilla, {words}, c1 pinned",
            f"runtimes.{name}.{mode}.relative",
            f"at least {least:.2f}, no request lost",
            runtime(name, mode, "relative"),
            all_answered(name, mode, least),
        )
        for name, mode, words, least in _OF_VANILLA
    ),
)
