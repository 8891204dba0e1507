# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where things are, and how a program is started natively and inside."""

import hashlib
import os
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .errors import ConformanceError
from .observe import Command

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
BUILD = REPOSITORY / "build" / "conformance"

#: What every program sees of this machine.
_SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/share/zoneinfo")
#: CPU time of a whole module. The test that goes on for ever is found earlier, by its silence.
_CPU_SECONDS = 200


def unpack(name: str, *packages: str) -> Path:
    """The directory with what the packages hold, downloaded once."""
    command = [str(REPOSITORY / "scripts" / "unpack-debian"), name, *packages]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ConformanceError(f"cannot unpack {name}: see above")
    return Path(done.stdout.strip())


@cache
def as_user() -> tuple[str, ...]:
    """What makes a native program user 1000, as programs inside are, if this user is root and may do that."""
    if os.getuid() != 0:
        return ()
    command = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    try:
        able = subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    return command if able else ()


@dataclass(frozen=True)
class Program:
    """A program of a suite."""

    arguments: list[str]
    environment: dict[str, str]
    #: What it reads, at the same paths natively and inside.
    reads: list[Path]
    directory: Path | None = None
    #: What is elsewhere natively, by its place inside.
    mounts: dict[str, Path] = field(default_factory=dict)

    def natively(self) -> Command:
        return Command([*as_user(), *self.arguments], {"PATH": "/usr/bin:/bin", **self.environment}, self.directory)

    def inside(self, run_to_end: Path) -> Command:
        options = []
        system = [Path(path) for path in _SYSTEM if Path(path).exists()]
        mounts = {str(path): path for path in (*system, *self.reads)} | self.mounts
        for guest, host in mounts.items():
            options += ["--mount", f"{guest}={host.resolve()}"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", **self.environment}
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        options += ["--seconds", str(_CPU_SECONDS)]
        return Command([str(run_to_end), *options, *self.arguments], dict(os.environ))


def digest(*parts: bytes) -> str:
    """A name for what a result depends on."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()
