# SPDX-License-Identifier: MIT OR Apache-2.0
"""The runtimes of a tenants file, and how each is started without a sandbox.

A tenant NAME is an unmodified server, NAME-sdk a program by the SDK; NAME-kept and NAME-sdk-kept are the same without a
reset.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import jsonc
from ..errors import BenchError

#: The runtimes in the order of the report.
NAMES = ("deno", "node", "python", "go", "rust", "c")
MODES = {"sdk": "-sdk", "server": ""}
_KEPT = "-kept"
#: The port that servers in the file listen on, each in its own sandbox.
_PORT = "8000"
#: The directory of the file's paths that a run may have elsewhere.
_BUILD = "build"


@dataclass(frozen=True)
class Sample:
    """A tenant, and the tenant that is the same but keeps its state, if there is one."""

    name: str
    config: dict
    kept: dict | None

    @property
    def host(self) -> str:
        """The host that has its requests."""
        return self.config["hosts"][0]

    @property
    def kept_host(self) -> str | None:
        """The host that has those of its twin."""
        return self.kept["hosts"][0] if self.kept else None

    def on(self, engine: str) -> "Sample":
        """The same on an engine, as a tenant with a name and hosts of its own."""
        config, kept = (_on(tenant, engine) if tenant else None for tenant in (self.config, self.kept))
        return replace(self, name=config["name"], config=config, kept=kept)


@dataclass(frozen=True)
class Runtime:
    """A runtime by its name, and what there is of it by mode."""

    name: str
    modes: dict[str, Sample]


@dataclass(frozen=True)
class Command:
    """A program without a sandbox: its command line and its whole environment."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """A tenants file, its paths made absolute."""

    file: dict
    runtimes: list[Runtime]

    @classmethod
    def read(cls, path: Path, build: Path, root: Path) -> "Samples":
        """Reads the file. Raises BenchError if that cannot be done, or it has none of the runtimes."""
        try:
            file = jsonc.loads(path.read_text(encoding="utf-8"))
            tenants = {tenant["name"]: tenant for tenant in file["tenants"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"cannot read the runtimes' tenants file {path}: {error!r}") from error
        places = _Places(build, root / file.get("root", ""))
        parts = [file.get("defaults", {}), *file.get("groups", {}).values(), *tenants.values()]
        for part in parts:
            for mount in part.get("mounts", []):
                mount.setdefault("at", mount["host"])
                mount["host"] = places.of(mount["host"])
        for tenant in tenants.values():
            tenant["program"] = places.of(tenant["program"])
        runtimes = []
        for name in NAMES:
            modes = {mode: name + suffix for mode, suffix in MODES.items()}
            found = {mode: Sample(own, tenants[own], tenants.get(own + _KEPT)) for mode, own in modes.items() if own in tenants}
            if found:
                runtimes.append(Runtime(name, found))
        if not runtimes:
            raise BenchError(f"{path} has none of the tenants {', '.join(NAMES)}")
        return cls({key: value for key, value in file.items() if key not in ("$schema", "root")}, runtimes)

    def tenants(self, samples: Sequence[Sample], **more: object) -> dict:
        """A tenants file with these alone, and with their twins."""
        tenants = [tenant for sample in samples for tenant in (sample.config, sample.kept) if tenant]
        return {**self.file, "watch": False, "tenants": [{**tenant, **more} for tenant in tenants]}

    def write(self, path: Path, samples: Sequence[Sample]) -> Path:
        """Writes such a file."""
        path.write_text(json.dumps(self.tenants(samples)), encoding="utf-8")
        return path

    def native(self, sample: Sample, port: int) -> Command:
        """The same program without a sandbox: its paths are the host's, and its port is `port`."""
        group = self.file.get("groups", {}).get(sample.config.get("group"), {})
        mounts = [mount for part in (self.file.get("defaults", {}), group, sample.config) for mount in part.get("mounts", [])]

        def outside(text: str) -> str:
            if text == _PORT:
                return str(port)
            for mount in mounts:
                if text == mount["at"]:
                    return mount["host"]
                if mount["at"] != mount["host"]:
                    text = text.replace(mount["at"] + "/", mount["host"] + "/")
            return text

        environment = {"PATH": "/usr/bin:/bin", **group.get("env", {}), **sample.config.get("env", {})}
        return Command(
            [sample.config["program"], *map(outside, sample.config.get("args", []))],
            {name: outside(value) for name, value in environment.items()},
        )


def _on(tenant: dict, engine: str) -> dict:
    hosts = [f"{host}.{engine}" for host in tenant["hosts"]]
    return {**tenant, "name": f"{tenant['name']}-{engine}", "hosts": hosts, "engine": engine}


@dataclass(frozen=True)
class _Places:
    build: Path
    root: Path

    def of(self, path: str) -> str:
        first, _, rest = path.partition("/")
        return str(self.build / rest if first == _BUILD else self.root / path)
