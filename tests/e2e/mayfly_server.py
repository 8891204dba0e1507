# SPDX-License-Identifier: MIT OR Apache-2.0
"""Starts a real server on a free port, and talks to it."""

import contextlib
import hashlib
import http.client
import json
import os
import random
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

# A loaded machine is slow to start a server and to boot runtimes; a test that fails waits no longer than this. Less than
# the minute after which Drogon closes idle connections: the end of a connection must not come by that.
TIMEOUT_S = 45
# For the end of a server, which waits 5 s for what is in work. Shorter than the limits of requests that it has to end.
END_S = 20


def program_path(name):
    return str(TENANTS / name / name)


def tenant(name, path=None, program=None, **more):
    """A tenant's configuration; `program` is the name of one of the built tenants."""
    where = {} if path is None else {"path": path}
    return {"name": name, **where, "program": program_path(program or name), **more}


def digest(key):
    """What a configuration has of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


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

    def echoed(self):
        """The request as the tenant `echo` saw it."""
        assert self.status == 200, self
        return self.json()


class Connection(http.client.HTTPConnection):
    """A kept-alive connection."""

    def send_request(self, method, path, body=None, headers=(), host=None):
        self.putrequest(method, path, skip_accept_encoding=True, skip_host=host is not None)
        if host is not None:
            self.putheader("host", host)
        for name, value in headers:
            self.putheader(name, value)
        if body is not None:
            self.putheader("content-length", str(len(body)))
        self.endheaders(body)

    def receive(self):
        response = self.getresponse()
        return Response(response.status, response.getheaders(), response.read())

    def fetch(self, method, path, body=None, headers=(), host=None):
        self.send_request(method, path, body, headers, host)
        return self.receive()


class Server:
    """mayfly-server with these tenants, from entering the context to leaving it.

    `config` has further keys of Mayfly's configuration, `app` of Drogon's "app". With `tenants_file` Mayfly's configuration
    is in a file of its own, which `write_tenants` replaces. With `open_directory` the server may be another user's.
    `listeners` are further ones of Drogon's, beside 127.0.0.1. With `admin` (its further keys) there is a listener for
    operators. `file` is a whole configuration of Drogon, instead of all these; its paths are relative to the repository.
    """

    def __init__(
        self,
        tenants=(),
        *,
        threads=2,
        config=None,
        app=None,
        tenants_file=False,
        admin=None,
        file=None,
        executable=EXECUTABLE,
        environment=None,
        launcher=(),
        pass_fds=(),
        open_directory=False,
        listeners=(),
    ):
        self.port = free_port()
        self._command, self._pass_fds = [*launcher, executable], pass_fds
        self._environment = dict(os.environ, **(environment or {}))
        self._config = dict(config or {})
        if admin is not None:
            self._config["admin"] = {"listen": "127.0.0.1:0", **admin}
        self._app = {"number_of_threads": threads, "document_root": "public", **(app or {})}
        self._tenants, self._tenants_file, self._file = tenants, tenants_file, file
        self._open_directory, self._listeners = open_directory, listeners
        self.admin_port = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
            if self._open_directory:
                self.directory.chmod(0o777)
            self._write_config()
            self.start()
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _write_config(self):
        if self._file is None:
            tenants_file = self.directory / "tenants.json"
            if self._tenants_file:
                self.write_tenants(self._tenants)
                plugin = {"tenants_file": str(tenants_file)}
            else:
                plugin = {**self._config, "tenants": self._tenants}
            config = {"app": self._app, "plugins": [{"name": "mayfly::SandboxPlugin", "config": plugin}]}
        else:
            config = self._file
        config["listeners"] = [{"address": "127.0.0.1", "port": self.port}, *self._listeners]
        (self.directory / "config.json").write_text(json.dumps(config))

    def write_tenants(self, tenants):
        """Replaces the tenants file."""
        replace(self.directory / "tenants.json", json.dumps({**self._config, "tenants": tenants}).encode())

    def start(self):
        """Starts the server, also after kill()."""
        self._log_path = self.directory / "log"
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                [*self._command, self.directory / "config.json"],
                cwd=REPOSITORY if self._file else self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._pass_fds,
            )
        try:
            self._await_listening()
            if "admin" in self._config:
                self.admin_port = int(self.await_log(r"operators are served address=\S+:(\d+)").group(1))
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self):
        return self._process.pid

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
            self.exit_status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log()}") from None
        # Whatever a test did, it must not end the server or keep it from ending.
        if self.exit_status != 0:
            raise AssertionError(f"the server ended with {describe(self.exit_status)}:\n{self.log()}")

    def kill(self):
        """Ends the server as a crash would."""
        self._process.kill()
        self._process.wait()

    def signal(self, number):
        self._process.send_signal(number)

    def await_end(self):
        """Waits until the server has ended by itself."""
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end:\n{self.log()}") from None

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

    def fetch(self, method, path, body=None, headers=(), host=None):
        """One request on a connection of its own."""
        with self.connect() as connection:
            return connection.fetch(method, path, body, headers, host)

    def get(self, path, host=None):
        return self.fetch("GET", path, host=host)

    def operate(self, method, path, body=None, key=None, headers=()):
        """One request to the listener for operators, below its prefix."""
        if key is not None:
            headers = [*headers, ("authorization", f"Bearer {key}")]
        with contextlib.closing(Connection("127.0.0.1", self.admin_port, timeout=TIMEOUT_S)) as connection:
            return connection.fetch(method, f"/_mayfly/{path}", body, headers)

    def status(self, key=None):
        response = self.operate("GET", "status", key=key)
        assert response.status == 200, response
        return response.json()

    def tenant_status(self, name, key=None):
        (found,) = [tenant for tenant in self.status(key)["tenants"] if tenant["name"] == name]
        return found

    def await_workers(self, name, count, key=None):
        """Waits until the tenant's first workers are there: a request before that gets one of its own."""
        self.await_that(lambda: self.tenant_status(name, key)["forks"] >= count, f"{name} has no workers")

    def await_that(self, holds, what):
        """Waits until `holds()`; `what` says what did not come true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}\n{self.log()}")
            time.sleep(0.02)

    def await_boot(self, path, host=None):
        """The first response that is not "still booting"."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            response = self.get(path, host=host)
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


def sample_server():
    """A server with the sample configuration."""
    text = (REPOSITORY / "drogon-plugin/server/mayfly.json").read_text()
    config = json.loads(re.sub(r"^\s*//.*$|(?<=,)\s*//.*$", "", text, flags=re.MULTILINE))
    for found in config["plugins"][0]["config"]["tenants"]:
        # Not the file that `make run` counts on with.
        found.get("shared_memory", {}).pop("file", None)
    return Server(file=config)


def replace(path, content):
    """Replaces the file's content, as one should with files in use: by a rename."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(0o755)
    new.rename(path)


def run_until_exit(config, *, environment=None):
    """Starts the server with a configuration (as an object or as text) that it must refuse. Returns its status and
    output.
    """
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
    """A port that is not in use. It is none of those that Linux gives to sockets which name no port, so that no other
    connection or listener gets it before the server binds it.
    """
    given, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [*range(10_000, given), *range(last + 1, 1 << 16)] or [0]
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(ports)))
            return probe.getsockname()[1]


def describe(status):
    return signal.Signals(-status).name if status < 0 else f"status {status}"
