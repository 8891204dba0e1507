# SPDX-License-Identifier: MIT OR Apache-2.0
"""A program behind no sandbox for the length of a measurement: it listens on a port of its own, where wrk asks it directly."""

import socket
import subprocess
import time
from pathlib import Path

from .. import pages
from ..errors import BenchError
from ..pinning import pinned_command
from ..server import fetch, free_port
from .samples import Sample, Samples

_START_S, _STOP_S = 30.0, 5.0


class Native:
    """One running program, as far as a measurement asks of it what it asks of a server. Use as a context manager."""

    def __init__(self, samples: Samples, sample: Sample, scratch: Path, cpu: int | None):
        self.port = free_port()
        self._command = samples.native(sample, self.port)
        self._cpu = cpu
        self._log = scratch / "native.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, path: str) -> str:
        """The address of one of its pages."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> "Native":
        command = ["setpriv", "--pdeathsig", "TERM", *pinned_command(self._command.arguments, self._cpu)]
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command, env=self._command.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(f"cannot start {command[0]}: {error.strerror}") from error
        try:
            self._wait_until_listening()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def get(self, path: str, host: str | None = None) -> pages.Page:
        """Requests one page. Raises BenchError if there is no answer."""
        return fetch(self.port, path, host, self.log_tail)

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of what it printed."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(["without a sandbox it printed:", *(text.splitlines()[-lines:] or ["(nothing)"])])

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while True:
            if (code := self._process.poll()) is not None:
                raise BenchError(f"without a sandbox it ends at once (exit status {code})\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"without a sandbox it does not listen within {_START_S:.0f} s\n{self.log_tail()}") from None
                time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
