# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a process holds, seen from outside."""

import os
from dataclasses import dataclass
from pathlib import Path

#: What each worker has one of: a virtual CPU, or the listener of a process's filter.
_WORKER = {"kvm": "anon_inode:kvm-vcpu", "process": "anon_inode:seccomp notify"}


@dataclass(frozen=True)
class Stat:
    """Of `/proc/PID/stat`: the parent, and the processor time of children that were waited for, in ticks."""

    parent: int
    waited_for_ticks: int


def workers(pid: int, engine: str) -> int:
    """The workers on an engine that a server has, by their descriptors."""
    return sum(target.startswith(_WORKER[engine]) for target in _descriptors(pid))


def tree(pid: int) -> dict[int, Stat]:
    """The process and all its descendants; empty if it has ended."""
    stats = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                # proc_pid_stat(5): fields 4, 16 and 17; the name before them may have spaces.
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            stats[int(entry.name)] = Stat(int(fields[1]), int(fields[13]) + int(fields[14]))
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(stat.parent, []).append(child)
    found, waiting = {}, [pid] if pid in stats else []
    while waiting:
        at = waiting.pop()
        found[at] = stats[at]
        waiting += children.get(at, [])
    return found


def descriptors(pid: int) -> int:
    """The open descriptors of a process."""
    return len(_descriptors(pid))


def _descriptors(pid: int) -> list[str]:
    targets = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            targets.append(os.readlink(entry.path))
        except FileNotFoundError:
            continue  # closed between the listing and the reading
    return targets


def memory_kib(pid: int) -> dict[str, int]:
    """What the process has of memory, in KiB: `private` to itself, and `pss`, its share of what others have, too."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0])
    return {"private": fields["Private_Clean"] + fields["Private_Dirty"], "pss": fields["Pss"]}
