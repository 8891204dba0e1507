# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs one program, reads what it prints as it comes, and ends it when a test does not end."""

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: What is kept of a program's output.
_LOG_BYTES = 16 << 20
#: What a line may have before it is cut.
_LINE_BYTES = 64 << 10
#: Before the reason for which a program did not run to its end inside.
_REASON = b"run_to_end: "


class Reader(Protocol):
    """Makes a suite's output into verdicts."""

    def line(self, line: str) -> None: ...

    def current(self) -> str | None:
        """The test that has begun and not ended."""


@dataclass(frozen=True)
class Command:
    """A program and where it runs."""

    arguments: list[str]
    environment: dict[str, str]
    #: Nothing for a new directory, which goes with the program.
    directory: Path | None = None


def observe(command: Command, reader: Reader, log: Path, patience: Callable[[str | None], float], most: float) -> str:
    """Feeds the program's output to `reader`; returns how the program ended, in words.

    The program ends after `most` seconds, or when its output stands still for as long as `patience` allows the test
    under way.
    """
    with tempfile.TemporaryDirectory(prefix="cf-", ignore_cleanup_errors=True) as scratch, log.open("ab") as kept:
        environment = {**command.environment, "TMPDIR": scratch, "HOME": scratch}
        process = subprocess.Popen(
            command.arguments,
            cwd=command.directory or scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _follow(process, reader, kept, patience, time.monotonic() + most)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            assert process.stdout
            process.stdout.close()


def _follow(process, reader, kept, patience, end) -> str:
    pipe = process.stdout.fileno()
    rest, room, status, reason = b"", _LOG_BYTES, None, ""
    quiet_until = time.monotonic() + patience(None)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            # A process that a test has left behind may keep the pipe open.
            status = process.poll()
            if selector.select(0 if status is not None else 0.5):
                data = os.read(pipe, 1 << 16)
                kept.write(data[:room])
                room -= min(room, len(data))
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-_LINE_BYTES:]
                before = reader.current()
                for line in lines:
                    if line.startswith(_REASON):
                        reason = ", " + line[len(_REASON) :].decode(errors="replace")
                    reader.line(line.decode(errors="replace"))
                if reader.current() != before:
                    quiet_until = time.monotonic() + patience(reader.current())
                if not data:
                    break
            elif status is not None:
                break
            now = time.monotonic()
            if now > end:
                return "the module's time is over"
            if now > quiet_until:
                return "no end in time"
    reader.line(rest.decode(errors="replace"))
    status = process.wait()
    return f"signal {-status}" if status < 0 else f"status {status}{reason}"
