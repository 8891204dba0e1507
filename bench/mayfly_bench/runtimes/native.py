# SPDX-License-Identifier: MIT OR Apache-2.0
"""A program behind no sandbox for the length of a measurement: wrk asks it directly."""

from pathlib import Path

from ..listening import Listening
from .samples import Sample, Samples


class Native(Listening):
    """One running program, as far as a measurement asks of it what it asks of a server. Use as a context manager."""

    called = "the program without a sandbox"

    def __init__(self, samples: Samples, sample: Sample, scratch: Path, cpu: int | None):
        super().__init__(scratch / "native.log", cpu)
        self._native = samples.native(sample, self.port)

    def _command(self) -> list[str]:
        return self._native.arguments

    def _options(self) -> dict:
        return {**super()._options(), "env": self._native.environment}
