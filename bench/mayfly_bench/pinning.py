# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which CPUs the benchmark may use, and how a process is kept on one of them."""

import os


def cpus() -> list[int]:
    """The CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def quiet_cpu() -> int:
    """The CPU for pinned measurements: the last one, since interrupts tend to arrive at the first."""
    return cpus()[-1]


def pinned_command(command: list[str], cpu: int | None) -> list[str]:
    """The command, kept on `cpu` if one is given. `taskset` execs, so the process id is the command's own."""
    return command if cpu is None else ["taskset", "--cpu-list", str(cpu), *command]
