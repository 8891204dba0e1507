# SPDX-License-Identifier: MIT OR Apache-2.0
"""One run of wrk against one URL."""

import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BenchError
from .pinning import pinned_command

#: Prints the result; a script for a special load brings this one in at its end.
SCRIPT = Path(__file__).with_name("wrk.lua")
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
    more: dict = field(default_factory=dict)


def run(
    url: str, load: Load, seconds: int, *, host: str | None = None, script: Path = SCRIPT, arguments: Sequence[str] = ()
) -> Measured:
    """Loads `url` for `seconds`, as the host `host` if one is given, with the requests that `script` makes.

    Raises BenchError if wrk cannot be started, fails, or gets no answer at all.
    """
    command = _command(url, load, seconds, host, script, arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    except FileNotFoundError as error:
        raise BenchError(f"cannot start {error.filename}: install it (apt-get install wrk), or run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk did not end within {seconds + 30} s: {' '.join(command)}") from error
    if done.returncode != 0:
        raise BenchError(f"wrk failed ({done.returncode}): {' '.join(command)}\n{done.stderr or done.stdout}")
    return parse(done.stdout)


class Running:
    """wrk for as long as something else takes: started on entering, asked for its result by `finish`."""

    #: Far longer than anything takes; `finish` ends it.
    _SECONDS = 900

    def __init__(self, url: str, load: Load, *, script: Path = SCRIPT, arguments: Sequence[str] = ()):
        self._command = _command(url, load, self._SECONDS, None, script, arguments)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Running":
        try:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except FileNotFoundError as error:
            raise BenchError(f"cannot start {error.filename}: install it (apt-get install wrk), or run `make setup`") from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def finish(self) -> Measured:
        """Ends the load. Raises BenchError if wrk has failed, or got no answer at all."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)  # its way to end early, with the result
        try:
            output, _ = self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"wrk did not end: {' '.join(self._command)}") from error
        return parse(output)


def _command(url: str, load: Load, seconds: int, host: str | None, script: Path, arguments: Sequence[str]) -> list[str]:
    header = ["-H", f"Host: {host}"] if host else []
    command = [
        *("wrk", "-t", str(load.threads), "-c", str(load.connections), "-d", f"{seconds}s", "-s", str(script)),
        *(*header, url, "--", *arguments),
    ]
    return pinned_command(command, load.cpu)


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
        more=seen.get("more", {}),
    )
