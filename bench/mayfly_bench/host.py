# SPDX-License-Identifier: MIT OR Apache-2.0
"""The machine that was measured: no figure means anything without it."""

import os
import platform
import re
from pathlib import Path

from .engines import Engines
from .pages import Page

_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")
_ALLOCATORS = ("jemalloc", "mimalloc", "tcmalloc")


def cpu_model(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo, with family and model, which say more than some names."""

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        return found.group(1).strip() if found else "?"

    return f"{field('model name')} (family {field('cpu family')}, model {field('model')})"


def mitigations(directory: Path = _VULNERABILITIES) -> dict[str, str]:
    """What the kernel does about each vulnerability that this CPU has."""
    states = {entry.name: entry.read_text().strip() for entry in sorted(directory.glob("*"))}
    return {name: state for name, state in states.items() if state != "Not affected"}


def allocator(maps: str) -> str:
    """The memory allocator of a process, from the text of its /proc/PID/maps: a known library, or libc's own."""
    for name in _ALLOCATORS:
        if f"lib{name}" in maps:
            return name
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    return f"{libc} malloc" if libc else "libc malloc"


def drogon_version(page: Page) -> str:
    """Drogon's version as it says it in the Server header of its answers."""
    return page.headers.get("server", "?").removeprefix("drogon/")


def priority() -> str:
    """How the kernel schedules this process, and with it the server and wrk, which inherit it."""
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        return "real-time"
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"


def describe(server_pid: int, page: Page, engines: Engines) -> dict:
    """The report's `host`."""
    probe = engines.info.get("host", {})
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "kvm": probe.get("kvm", "?"),
        "auto": engines.info.get("auto", {}),
        "engines": engines.info["engines"],
        "mitigations": mitigations(),
        "drogon": drogon_version(page),
        "allocator": allocator(Path(f"/proc/{server_pid}/maps").read_text()),
        "probe": probe,
    }
