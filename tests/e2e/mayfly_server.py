# SPDX-License-Identifier: MIT OR Apache-2.0
"""Starts a real server on a free port, and talks to it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXECUTABLE = REPOSITORY / "build/bin/mayfly-server"
TENANTS = REPOSITORY / "build/tenants"

# A loaded machine is slow to start a server; a test that fails waits no longer than this.
TIMEOUT_S = 20


def tenant(name, path, program=None, **more):
    """A tenant's configuration; `program` is the name of one of the built tenants or a path."""
    return {"name": name, "path": path, "program": str(TENANTS / (program or name) / (program or name)), **more}


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name):
        """The header's value, or None; it is there once at most."""
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)


class Connection(http.client.HTTPConnection):
    """A kept-alive connection."""

    def fetch(self, method, path, body=None, headers=()):
        self.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            self.putheader(name, value)
        if body is not None:
            self.putheader("content-length", str(len(body)))
        self.endheaders(body)
        response = self.getresponse()
        return Response(response.status, response.getheaders(), response.read())


class Server:
    """mayfly-server with these tenants, from entering the context to leaving it."""

    def __init__(self, tenants, *, threads=2, defaults=None, executable=EXECUTABLE, environment=None, launcher=()):
        self.port = free_port()
        self._command = [*launcher, executable]
        self._environment = dict(os.environ, **(environment or {}))
        config = {"tenants": tenants}
        if defaults is not None:
            config["defaults"] = defaults
        self._config = {
            "listeners": [{"address": "127.0.0.1", "port": self.port}],
            "app": {"number_of_threads": threads, "document_root": "public"},
            "plugins": [{"name": "mayfly::SandboxPlugin", "config": config}],
        }

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
            (directory / "config.json").write_text(json.dumps(self._config))
            self._log_path = directory / "log"
            log = stack.enter_context(open(self._log_path, "wb"))
            self._process = subprocess.Popen(
                [*self._command, directory / "config.json"],
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(self._stop)
            self._await_listening()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _await_listening(self):
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.01)

    def _stop(self):
        self._process.terminate()
        try:
            self.exit_status = self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log()}") from None
        # Whatever a test did, it must not end the server or keep it from ending.
        if self.exit_status != 0:
            raise AssertionError(f"the server ended with {describe(self.exit_status)}:\n{self.log()}")

    def is_running(self):
        return self._process.poll() is None

    def log(self):
        """All that the server has written so far."""
        return self._log_path.read_text(errors="backslashreplace")

    def await_log(self, pattern):
        """The first match of `pattern` in the log, as soon as it is there."""
        deadline = time.monotonic() + TIMEOUT_S
        while (match := re.search(pattern, self.log())) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"not in the log: {pattern}\n{self.log()}")
            time.sleep(0.01)
        return match

    def connect(self):
        return contextlib.closing(Connection("127.0.0.1", self.port, timeout=TIMEOUT_S))

    def socket(self):
        """A plain TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def fetch(self, method, path, body=None, headers=()):
        """One request on a connection of its own."""
        with self.connect() as connection:
            return connection.fetch(method, path, body, headers)

    def get(self, path):
        return self.fetch("GET", path)

    def await_boot(self, path):
        """The first response that is not "still booting"."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            response = self.get(path)
            if b"still booting" not in response.body or time.monotonic() > deadline:
                return response
            time.sleep(0.05)

    def raw(self, data):
        """Sends `data`, which must make the server close the connection, and returns all that comes back."""
        with self.socket() as connection:
            connection.sendall(data)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


def run_until_exit(config, *, environment=None):
    """Starts the server with a configuration (as an object or as text) that it is to refuse: its status and output."""
    with tempfile.TemporaryDirectory(prefix="mayfly-e2e-") as directory:
        path = Path(directory) / "config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        result = subprocess.run(
            [EXECUTABLE, path],
            cwd=directory,
            env=dict(os.environ, **(environment or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
        return result.returncode, result.stdout.decode(errors="backslashreplace")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def describe(status):
    return signal.Signals(-status).name if status < 0 else f"status {status}"
