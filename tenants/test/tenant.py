# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs a tenant that was linked with the fake host (fakehost.c)."""

import os
import struct
import subprocess
import threading
from dataclasses import dataclass, field


@dataclass
class Request:
    path: str | bytes = "/"
    method: str | bytes = "GET"
    query: str | bytes = ""
    body: bytes = b""
    headers: list = field(default_factory=list)
    id: int = 1
    unix_ns: int = 0
    monotonic_ns: int = 0
    entropy: bytes = bytes(32)

    def frame(self) -> bytes:
        parts = [struct.pack("<QQQ", self.id, self.unix_ns, self.monotonic_ns), self.entropy]
        parts += [_string(part) for part in (self.method, self.path, self.query, self.body)]
        parts.append(struct.pack("<I", len(self.headers)))
        for name, value in self.headers:
            parts += [_string(name), _string(value)]
        return b"".join(parts)


@dataclass
class Answer:
    """What the storage program says to the call that the request before it makes."""

    result: bytes = b""
    error: int = 0

    def frame(self) -> bytes:
        return struct.pack("<I", self.error) + _string(self.result)


@dataclass
class Response:
    """A response; with status 0 a call of the function that the first header names."""

    doorbells: int
    status: int
    body: bytes
    headers: list


@dataclass
class Run:
    responses: list
    status: int
    stdout: bytes
    stderr: bytes


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _responses(data: bytes) -> list:
    offset = 0

    def u32() -> int:
        nonlocal offset
        (value,) = struct.unpack_from("<I", data, offset)
        offset += 4
        return value

    def string() -> bytes:
        nonlocal offset
        size = u32()
        offset += size
        return data[offset - size : offset]

    found = []
    try:
        while offset < len(data):
            doorbells, status, body = u32(), u32(), string()
            found.append(Response(doorbells, status, body, [(string(), string()) for _ in range(u32())]))
    except struct.error:
        pass  # The fake host gave up in the middle of a response that was none.
    return found


def run(program: str, requests: list, *args: str, timeout: float = 120, env: dict | None = None) -> Run:
    """Feeds the requests, and answers to calls, to one process of the program and collects its responses and calls."""
    read_end, write_end = os.pipe()
    command = ["/bin/sh", "-c", f'exec "$0" "$@" 3>&{write_end}', program, *args]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, pass_fds=[write_end], env=env) as process:
        os.close(write_end)
        collected = []
        reader = threading.Thread(target=lambda: collected.append(_read_all(read_end)))
        reader.start()
        try:
            stdout, stderr = process.communicate(b"".join(r.frame() for r in requests), timeout=timeout)
        finally:
            process.kill()  # After a time-out it still runs.
            reader.join()
    return Run(_responses(collected[0]), process.returncode, stdout, stderr)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()
