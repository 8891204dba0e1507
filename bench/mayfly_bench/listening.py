# SPDX-License-Identifier: MIT OR Apache-2.0
"""A program that listens on the loopback interface for the length of a measurement.

It is stopped by process id whatever happens: on leaving the `with` block, and by the kernel (`setpriv --pdeathsig`)
should the benchmark itself be killed.
"""

import random
import socket
import subprocess
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

from .errors import BenchError
from .pages import Page
from .pinning import pinned_command

_START_S = 60.0
_STOP_S = 10.0
_ANSWER_S = 10.0
_PORTS = (16_384, 32_768)


class Listening:
    """One running program, on a port of its own. Use as a context manager."""

    #: What messages call it.
    called = "the program"

    def __init__(self, log: Path, cpu: int | None):
        """
        Arguments:
            log: the file for what it prints.
            cpu: the one CPU that it is kept on, if any.
        """
        self.port = free_port()
        self._log = log
        self._cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        """The program and its arguments; called once, when it is started. Raises BenchError if it cannot be prepared.
        """
        raise NotImplementedError

    def _options(self) -> dict:
        """How it is started beyond that, as `subprocess.Popen` takes it."""
        return {"start_new_session": True}

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, path: str) -> str:
        """The address of one of its pages."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> Self:
        command = ["setpriv", "--pdeathsig", "TERM", *pinned_command(self._command(), self._cpu)]
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **self._options()
                )
            except FileNotFoundError as error:
                raise BenchError(f"cannot start {error.filename}: it is part of Debian's util-linux") from error
        try:
            self._wait_until_listening()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def get(self, path: str, host: str | None = None) -> Page:
        """Requests one page, as of the host `host` if one is given. Raises BenchError if there is no answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path, headers={"host": host} if host else {})
            response = connection.getresponse()
            return Page(response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read())
        except (OSError, HTTPException) as error:
            raise BenchError(f"GET {path}: {error!r}\n{self.log_tail()}") from error
        finally:
            connection.close()

    def get_when_booted(self, path: str, host: str | None = None) -> Page:
        """Requests one page, again for as long as the answer is 503 (a tenant that still boots)."""
        deadline = time.monotonic() + _START_S
        while (page := self.get(path, host)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        return page

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of what it printed."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join([f"{self.called} printed at last:", *(text.splitlines()[-lines:] or ["(nothing)"])])

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while True:
            if (code := self._process.poll()) is not None:
                raise BenchError(f"{self.called} ended at once (exit status {code})\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"{self.called} did not listen within {_START_S:.0f} s\n{self.log_tail()}") from None
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


def free_port() -> int:
    """Picks an unused port, below the ephemeral ones, which the kernel could give to an outgoing connection."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(*_PORTS)))
            except OSError:
                continue
            return probe.getsockname()[1]
