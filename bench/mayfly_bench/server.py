# SPDX-License-Identifier: MIT OR Apache-2.0
"""A mayfly-server for the length of a measurement.

It runs the sample configuration on a free port of the loopback interface with as many loop threads
as it is told, in its own process group, and is stopped by process id whatever happens: on leaving
the `with` block, and by the kernel (`setpriv --pdeathsig`) should the benchmark itself be killed.
"""

import json
import random
import socket
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from . import jsonc
from .errors import BenchError
from .pages import Page
from .pinning import pinned_command

_START_S = 60.0
_STOP_S = 10.0
_ANSWER_S = 10.0
_PORTS = (16_384, 32_768)
_PLUGIN = "mayfly::SandboxPlugin"


class Server:
    """One running server. Use as a context manager."""

    def __init__(
        self, binary: Path, sample: Path, root: Path, scratch: Path, *, threads: int, cpu: int | None = None,
        tenants: dict | None = None, in_session: bool = False,
    ):
        """
        Arguments:
            binary: the server's program.
            sample: its configuration, of which listener and thread count are replaced.
            root: the directory that the configuration's paths are relative to.
            scratch: a directory for the configuration made and the server's log.
            threads: the number of Drogon loop threads.
            cpu: the one CPU that the server is kept on, if any.
            tenants: a tenants file to use in place of the sample's tenants, if given.
            in_session: whether the server stays in the benchmark's session, and with wrk in one scheduling group: then its threads'
                priorities count against wrk, too (docs/decisions/0052).
        """
        self._binary, self._sample, self._root, self._scratch = binary, sample, root, scratch
        self._tenants, self._in_session = tenants, in_session
        self._threads, self._cpu = threads, cpu
        self._log = scratch / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, path: str) -> str:
        """The address of one of its routes."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> "Server":
        self.port = free_port()
        config = self._scratch / "server.json"
        file = None
        if self._tenants is not None:
            file = self._scratch / "tenants.json"
            file.write_text(json.dumps(self._tenants))
        config.write_text(json.dumps(configuration(self._sample, self.port, self._threads, file), indent=2))
        command = [str(self._binary), str(config)]
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", *pinned_command(command, self._cpu)],
                    cwd=self._root, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=not self._in_session, process_group=0 if self._in_session else None,
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
        """Requests one page, as the host `host` if one is given. Raises BenchError if the server does not answer."""
        return fetch(self.port, path, host, self.log_tail)

    def get_when_booted(self, path: str, host: str | None = None) -> Page:
        """Requests one page, again for as long as the answer is 503 (a tenant that still boots)."""
        deadline = time.monotonic() + _START_S
        while (page := self.get(path, host)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        return page

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of what the server printed."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(["the server's log ends:", *(text.splitlines()[-lines:] or ["(nothing was printed)"])])

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while True:
            if (code := self._process.poll()) is not None:
                raise BenchError(f"the server ended at once (exit status {code})\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"the server did not listen within {_START_S:.0f} s\n{self.log_tail()}") from None
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


def configuration(sample: Path, port: int, threads: int, tenants_file: Path | None = None) -> dict:
    """The sample configuration with one loopback listener, a given number of loop threads, and the tenants of a file if one is given.

    Raises BenchError if the sample cannot be read.
    """
    try:
        config = jsonc.loads(sample.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read the server's configuration {sample}: {error}") from error
    config["listeners"] = [{"address": "127.0.0.1", "port": port}]
    config["app"] = {key: value for key, value in config.get("app", {}).items() if key != "threads_num"}  # its old name
    config["app"]["number_of_threads"] = threads
    if tenants_file is not None:
        for plugin in config.get("plugins", []):
            if plugin.get("name") == _PLUGIN:
                plugin["config"] = {"tenants_file": str(tenants_file)}
    return config


def fetch(port: int, path: str, host: str | None, log_tail: Callable[[], str]) -> Page:
    """Requests one page of whoever listens on `port`. Raises BenchError, with what `log_tail` says, if there is no answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path, headers={"host": host} if host else {})
        response = connection.getresponse()
        return Page(response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read())
    except (OSError, HTTPException) as error:
        raise BenchError(f"GET {path}: {error!r}\n{log_tail()}") from error
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel hands to outgoing connections, which could take it again."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(*_PORTS)))
            except OSError:
                continue
            return probe.getsockname()[1]
