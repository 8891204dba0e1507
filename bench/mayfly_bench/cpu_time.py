# SPDX-License-Identifier: MIT OR Apache-2.0
"""How much processor time a server has used, with the processes that programs run in.

`/proc/PID/task/TID/schedstat` starts with the nanoseconds that the thread has run, which includes
time inside a virtual machine. It does not count waiting, so it hardly moves when a neighbour makes
the machine busy: the steadiest figure that a shared machine can give.

Programs on the process engine run in processes, which zygotes, children of the server, have started. Of one that has
ended, its parent has the time, but in ticks.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from . import process

#: Nanoseconds run so far, by thread id.
ThreadTimes = dict[int, int]


@dataclass(frozen=True)
class CpuTimes:
    """The time used so far: by each thread of the server, empty once it has ended; and by all its descendants together,
    those included that have ended and were waited for.
    """

    threads: ThreadTimes
    descendants_ns: int = 0

    def since(self, before: "CpuTimes") -> int:
        """The time that the threads alive now, and all descendants, used since `before`, in nanoseconds."""
        threads = sum(ns - before.threads.get(tid, 0) for tid, ns in self.threads.items())
        # A zygote that has ended takes its own children's time with it until the server has waited for it.
        return threads + max(0, self.descendants_ns - before.descendants_ns)


def of(pid: int) -> CpuTimes:
    """The time that a process and its descendants have used so far."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    tree = process.tree(pid)
    alive = sum(sum(of_threads(child).values()) for child in tree if child != pid)
    return CpuTimes(of_threads(pid), alive + sum(stat.waited_for_ticks for stat in tree.values()) * tick_ns)


def of_threads(pid: int) -> ThreadTimes:
    """The time used so far by each thread of a process; empty once it has ended."""
    times: ThreadTimes = {}
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            times[int(schedstat.parent.name)] = int(schedstat.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended between the listing and the reading
    return times
