# SPDX-License-Identifier: MIT OR Apache-2.0
"""How much processor time a process has used, thread by thread.

`/proc/PID/task/TID/schedstat` starts with the nanoseconds that the thread has run, which includes
time inside a virtual machine. It does not count waiting, so it hardly moves when a neighbour makes
the machine busy: the steadiest figure that a shared machine can give.
"""

from pathlib import Path

#: Nanoseconds run so far, by thread id.
CpuTimes = dict[int, int]


def of_threads(pid: int) -> CpuTimes:
    """The time used so far by each thread of a process; empty once it has ended."""
    times: CpuTimes = {}
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            times[int(schedstat.parent.name)] = int(schedstat.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended between the listing and the reading
    return times


def used_ns(before: CpuTimes, after: CpuTimes) -> int:
    """The time that the threads alive at the end used since `before`, in nanoseconds."""
    return sum(ns - before.get(tid, 0) for tid, ns in after.items())
