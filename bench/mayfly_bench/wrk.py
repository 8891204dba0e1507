# SPDX-License-Identifier: MIT OR Apache-2.0
"""One run of wrk against one URL."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError
from .pinning import pinned_command

_SCRIPT = Path(__file__).with_name("wrk.lua")
_MARK = "mayfly-wrk: "
_ERROR_KINDS = ("connect", "read", "write", "timeout", "status")


@dataclass(frozen=True)
class Load:
    """What wrk is asked to do: connections, threads and, where pinned, the one CPU it may use."""

    connections: int
    threads: int
    cpu: int | None = None

    @property
    def pinned(self) -> bool:
        """Whether server and wrk share one CPU."""
        return self.cpu is not None


@dataclass(frozen=True)
class Measured:
    """What wrk saw. `errors` counts socket errors and responses of status 400 and above."""

    requests: int
    rps: float
    p50_us: int
    p75_us: int
    p90_us: int
    p99_us: int
    max_us: int
    errors: int


def run(url: str, load: Load, seconds: int) -> Measured:
    """Loads `url` for `seconds`.

    Raises BenchError if wrk cannot be started, fails, or gets no answer at all.
    """
    command = pinned_command(
        ["wrk", "-t", str(load.threads), "-c", str(load.connections), "-d", f"{seconds}s", "-s", str(_SCRIPT), url],
        load.cpu,
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    except FileNotFoundError as error:
        raise BenchError(f"cannot start {error.filename}: install it (apt-get install wrk), or run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk did not end within {seconds + 30} s: {' '.join(command)}") from error
    if done.returncode != 0:
        raise BenchError(f"wrk failed ({done.returncode}): {' '.join(command)}\n{done.stderr or done.stdout}")
    return parse(done.stdout)


def parse(output: str) -> Measured:
    """Reads the line that wrk.lua prints. Raises BenchError where there is none, or no request was answered."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise BenchError(f"wrk printed no result:\n{output}")
    seen = json.loads(line.removeprefix(_MARK))
    if seen["requests"] == 0:
        raise BenchError(f"no request was answered:\n{output}")
    return Measured(
        requests=seen["requests"],
        rps=seen["requests"] / seen["duration_us"] * 1e6,
        p50_us=seen["p50_us"],
        p75_us=seen["p75_us"],
        p90_us=seen["p90_us"],
        p99_us=seen["p99_us"],
        max_us=seen["max_us"],
        errors=sum(seen[kind] for kind in _ERROR_KINDS),
    )
