# SPDX-License-Identifier: MIT OR Apache-2.0
"""What else the machine did during a measurement: the benchmark's own statement of its noise."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

# proc_stat(5): user nice system idle iowait irq softirq steal guest guest_nice; guest is part of user.
_IDLE, _IOWAIT, _COUNTED = 3, 4, 8


@dataclass(frozen=True)
class Used:
    """Processor time since some moment, in seconds: of the whole machine, and of our own children."""

    total_s: float
    busy_s: float
    children_s: float

    def others_percent(self, server_ns: int) -> float:
        """The share of all processors that neither server nor wrk used and that was not idle, in percent.

        It holds other processes, time stolen by the hypervisor, and interrupts. The kernel counts it
        in ticks, so a percent or two is rounding.
        """
        others_s = self.busy_s - self.children_s - server_ns / 1e9
        return max(0.0, others_s) / self.total_s * 100 if self.total_s else 0.0


def now() -> Used:
    """The counters since boot."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : 1 + _COUNTED]]
    per_second = os.sysconf("SC_CLK_TCK")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Used(
        total_s=sum(ticks) / per_second,
        busy_s=(sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / per_second,
        children_s=children.ru_utime + children.ru_stime,
    )


def since(start: Used) -> Used:
    """What was used since `start`. Only children that have ended count, which is what a finished wrk is."""
    end = now()
    return Used(end.total_s - start.total_s, end.busy_s - start.busy_s, end.children_s - start.children_s)
