# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which version of a runtime was measured: as it says itself, or as its compiler wrote it into the program."""

import re
import subprocess
from pathlib import Path

from .samples import Sample, Samples

#: How a runtime is asked, and where its answer has the version.
_ASKED = {
    "deno": ("--version", r"deno (\S+)"),
    "node": ("--version", r"v(\S+)"),
    "python": ("--version", r"Python (\S+)"),
    "c": ("-v", r"(\S+/\S+)"),
}
#: What compilers leave in a program.
_WRITTEN = {"go": rb"\xff Go buildinf:.{18}.(go[0-9.]+)", "rust": rb"(rustc version [0-9.]+)"}


def version(samples: Samples, name: str, sample: Sample) -> str:
    """The version, or "?" where the program does not say it."""
    if name in _ASKED:
        return _asked(samples, sample, *_ASKED[name])
    try:
        program = Path(sample.config["program"]).read_bytes()
    except OSError:
        return "?"
    found = re.search(_WRITTEN[name], program, re.DOTALL)
    return found.group(1).decode() if found else "?"


def _asked(samples: Samples, sample: Sample, option: str, pattern: str) -> str:
    command = samples.native(sample, 0)
    try:
        said = subprocess.run(
            [command.arguments[0], option], env=command.environment, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    found = re.search(pattern, said.stdout)
    return found.group(1) if found else "?"
