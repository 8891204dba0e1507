# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a process holds, seen from outside."""

import os
from pathlib import Path

_MACHINE = "anon_inode:kvm-vcpu"


def machines(pid: int) -> int:
    """The virtual CPUs that a process has: as many as workers, for each has one."""
    return sum(target.startswith(_MACHINE) for target in _descriptors(pid))


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
