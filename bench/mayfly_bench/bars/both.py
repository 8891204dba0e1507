# SPDX-License-Identifier: MIT OR Apache-2.0
"""The aims of every engine."""

from .bar import Bar
from .figures import no_failed_reload, nothing_failed, tenancy

BARS = (
    Bar(
        "rise of the p99 beside a neighbour that spins, ms",
        "tenancy.noisy_neighbour_p99_ms",
        "at most 1.2 (1.2 inline budgets), no request lost",
        tenancy("noisy_neighbour_p99_ms"),
        nothing_failed("noisy_neighbour_p99_ms", lambda measured: measured <= 1.2),
    ),
    Bar(
        "failures in 1,000 reloads under load",
        "tenancy.reload_failures",
        "0",
        tenancy("reload_failures"),
        no_failed_reload,
    ),
)
