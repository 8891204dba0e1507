# SPDX-License-Identifier: MIT OR Apache-2.0
"""A mayfly-server for the length of a measurement: the sample configuration on a free port of the loopback interface,
with `threads` loop threads, in its own process group.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from . import jsonc
from .errors import BenchError
from .listening import Listening
from .routes import ROUTES

_PLUGIN = "mayfly::SandboxPlugin"
#: The path of the sample's tenant whose page vanilla Drogon has, too.
_COMPARED = "/z"


class Server(Listening):
    """One running server. Use as a context manager."""

    called = "the server"

    def __init__(
        self, binary: Path, sample: Path, root: Path, scratch: Path, *, threads: int, cpu: int | None = None,
        engines: Sequence[str] = (), tenants: dict | None = None, in_session: bool = False,
    ):
        """
        Arguments:
            binary: the server's program.
            sample: its configuration, of which listener and thread count are replaced.
            root: the directory that the configuration's paths are relative to.
            scratch: a directory for the configuration made and the server's log.
            threads: the number of Drogon loop threads.
            cpu: the one CPU that the server is kept on, if any.
            engines: those that run the sample's program of the sandboxed route, each on a route of its own; none if the
                sample is not to be changed.
            tenants: a tenants file to use in place of the sample's tenants, if given.
            in_session: whether the server stays in the benchmark's session, and with wrk in one scheduling group: then its threads'
                priorities count against wrk, too (docs/decisions/0052).
        """
        super().__init__(scratch / "server.log", cpu)
        self._binary, self._sample, self._root, self._scratch = binary, sample, root, scratch
        self._engines, self._tenants, self._in_session = engines, tenants, in_session
        self._threads = threads

    def _command(self) -> list[str]:
        config = self._scratch / "server.json"
        file = None
        if self._tenants is not None:
            file = self._scratch / "tenants.json"
            file.write_text(json.dumps(self._tenants))
        config.write_text(json.dumps(configuration(self._sample, self.port, self._threads, file, self._engines), indent=2))
        return [str(self._binary), str(config)]

    def _options(self) -> dict:
        return {
            "cwd": self._root, "start_new_session": not self._in_session, "process_group": 0 if self._in_session else None,
        }


def configuration(
    sample: Path, port: int, threads: int, tenants_file: Path | None = None, engines: Sequence[str] = ()
) -> dict:
    """The sample configuration with one loopback listener, a given number of loop threads, the tenants of a file if one is
    given, and otherwise the program of the sandboxed route once for each engine.

    Raises BenchError if the sample cannot be read, or has no such program.
    """
    try:
        config = jsonc.loads(sample.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read the server's configuration {sample}: {error}") from error
    config["listeners"] = [{"address": "127.0.0.1", "port": port}]
    config["app"] = {key: value for key, value in config.get("app", {}).items() if key != "threads_num"}  # its old name
    config["app"]["number_of_threads"] = threads
    for plugin in config.get("plugins", []):
        if plugin.get("name") == _PLUGIN:
            if tenants_file is not None:
                plugin["config"] = {"tenants_file": str(tenants_file)}
            elif engines:
                plugin["config"] = _on_each(plugin.get("config", {}), engines, sample)
    return config


def _on_each(config: dict, engines: Sequence[str], sample: Path) -> dict:
    """The plugin's configuration with one tenant once for each engine, and the others on the first."""
    tenants = config.get("tenants", [])
    compared = next((tenant for tenant in tenants if tenant.get("path") == _COMPARED), None)
    if compared is None:
        raise BenchError(f"{sample} has no tenant with the path {_COMPARED} to compare with vanilla Drogon")
    twins = [{**compared, "name": f"{compared['name']}-{engine}", "path": ROUTES[engine], "engine": engine} for engine in engines]
    return {**config, "engine": engines[0], "tenants": [*twins, *(tenant for tenant in tenants if tenant is not compared)]}
