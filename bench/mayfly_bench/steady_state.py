# SPDX-License-Identifier: MIT OR Apache-2.0
"""System calls per request, counted from outside.

`mayfly bench` writes a line to stderr when its steady state begins and another when it ends. strace
sees those writes and every call between them, of every thread, so the figure does not rest on
anything that Mayfly says about itself.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError

_BEGIN, _END = '"mayfly-bench: steady begin', '"mayfly-bench: steady end'
_TIMEOUT_S = 300
#: The ioctls by which an engine runs a program.
_RUNS = {"kvm": ("KVM_RUN",), "process": ("SECCOMP_IOCTL_NOTIF_SEND", "SECCOMP_IOCTL_NOTIF_RECV")}

# "1234 ioctl(7, KVM_RUN, 0) = 0": a call's line starts with its name. Where another thread's line
# came between, the second half reads "1234 <... ioctl resumed>" and is not a call of its own.
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")


@dataclass(frozen=True)
class SteadyState:
    """The calls made between the two marks.

    `run_ioctls` counts the ioctls by which the engine runs a program, `other_calls` all else of the thread that serves
    requests, by name, and `background_calls` those of all other threads and of processes that programs run in.
    """

    requests: int
    run_ioctls: int
    other_calls: dict[str, int]
    background_calls: dict[str, int]

    def as_report(self) -> dict:
        """The keys that this adds to the report's `micro`."""
        ioctls = self.run_ioctls + self.other_calls.get("ioctl", 0)
        return {
            "ioctls_per_request": ioctls / self.requests,
            "other_syscalls": self.other_calls,
            "background_syscalls": self.background_calls,
            "strace_requests": self.requests,
        }


def count(cli: Path, program: Path, requests: int, engine: str) -> SteadyState:
    """Runs `mayfly bench` on an engine under strace and counts.

    Raises BenchError if strace is missing or may not trace, if the run fails, or if the marks are absent.
    """
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as scratch:
        trace = Path(scratch) / "trace"
        command = [
            *("strace", "--follow-forks", "--quiet=all", "--signal=none", "--output", str(trace)),
            *(str(cli), "bench", str(program), "--engine", engine, "--requests", str(requests), "--json"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except FileNotFoundError as error:
            raise BenchError("cannot start strace: install it (apt-get install strace), or run `make setup`") from error
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"no end within {_TIMEOUT_S} s: {' '.join(command)}") from error
        if done.returncode != 0 or not trace.exists():
            raise BenchError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr.strip()}")
        return parse(trace.read_text(errors="replace"), requests, engine)


def parse(trace: str, requests: int, engine: str) -> SteadyState:
    """Counts the calls between the marks of a trace. Raises BenchError if a mark is absent."""
    server: str | None = None
    ended = False
    runs = 0
    others: Counter[str] = Counter()
    background: Counter[str] = Counter()
    for line in trace.splitlines():
        if (match := _CALL.match(line)) is None:
            continue
        thread, name, arguments = match.groups()
        if name == "write" and _BEGIN in arguments:
            server = thread
        elif name == "write" and _END in arguments:
            ended = True
            break
        elif server is None:
            continue
        elif thread != server:
            background[name] += 1
        elif name == "ioctl" and any(run in arguments for run in _RUNS[engine]):
            runs += 1
        else:
            others[name] += 1
    if server is None or not ended:
        raise BenchError("strace did not see the steady state's marks; was `mayfly bench` built from the same commit?")
    return SteadyState(requests, runs, dict(others), dict(background))
