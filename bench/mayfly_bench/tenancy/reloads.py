# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reloads of one tenant under load: failures, answers of the wrong program, and leaks.

The tenant's file is replaced in turn by two programs with different pages, and each time the admin listener gets a
reload request. Four connections request the page all the time, with a pause between requests: a load that takes every
processor would starve the kernel's threads, which help to create and close machines. Every answer names its generation,
and so the program that must have made it; on one connection generations never go down. After each reload, two more
requests must get the new generation at once.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .. import process, wrk
from ..errors import BenchError
from ..options import Options
from ..listening import free_port
from ..server import Server
from ..wrk import Load, Running
from .result import Result

_SCRIPT = Path(__file__).with_name("generations.lua")
_LOAD, _PAUSE_MS = Load(4, 4), 1
#: The programs in turn, and their pages.
_PROGRAMS = (("hello", "Hello World!"), ("visits", "visit 1\n"))
_PATH = "/reloaded"
#: Reloads before memory and descriptors are first looked at, and looks after that.
_WARM, _LOOKS = 20, 20
_SETTLE_S = 1.0
_TIMEOUT_S = 30.0


def tenants(program: Path, admin_port: int, key: str) -> dict:
    """One tenant, whose answers name their generation, and an admin listener with a key."""
    return {
        "watch": False,
        "mode_header": True,
        "admin": {"listen": f"127.0.0.1:{admin_port}", "key_sha256": hashlib.sha256(key.encode()).hexdigest()},
        "tenants": [{"name": "reloaded", "path": _PATH, "program": str(program), "boot": "start"}],
    }


def measure(chosen: Options, server: Callable[[dict], Server], scratch: Path, progress: Callable[[str], None]) -> Result:
    """Reloads as often as the options say, and counts all failures."""
    program, key = scratch / "reloaded", secrets.token_urlsafe(24)
    replace(program, chosen.tenant(_PROGRAMS[0][0]))
    admin_port = free_port()
    arguments = [*(page.replace("\n", "\\n") for _, page in _PROGRAMS), str(_PAUSE_MS)]
    looks: list[dict] = []
    with server(tenants(program, admin_port, key)) as running:
        if (page := running.get_when_booted(_PATH)).body != _PROGRAMS[0][1].encode():
            raise BenchError(f"{_PATH} answers {page.status} and {page.body[:80]!r}")
        with (
            Reloader(running, admin_port, key, [chosen.tenant(name) for name, _ in _PROGRAMS], program) as reloader,
            Running(running.url(_PATH), _LOAD, script=_SCRIPT, arguments=arguments) as load,
        ):
            reloader.reload(_WARM)
            began = time.monotonic()
            for part in range(_LOOKS):
                looks.append(look(running, reloader.done - _WARM))
                progress(f"reload {reloader.done - _WARM} of {chosen.tenancy.reloads}")
                reloader.reload(chosen.tenancy.reloads * (part + 1) // _LOOKS - chosen.tenancy.reloads * part // _LOOKS)
            seconds = time.monotonic() - began
            looks.append(look(running, reloader.done - _WARM))
            seen = load.finish()
        time.sleep(_SETTLE_S)
        looks.append(look(running, reloader.done - _WARM) | {"at_rest": True})
        boot_log = running.log_tail(3) if reloader.failures else ""
    counts = {"load_errors": seen.errors, **seen.more, **reloader.counts()}
    answered = counts.pop("answered", 0)
    failures = sum(counts.values())
    return Result(
        failures, [failures], looks, failures,
        {
            "reloads": chosen.tenancy.reloads, "seconds": round(seconds, 1), "answers": answered, "rps": seen.rps,
            "p99_us": seen.p99_us, "max_us": seen.max_us, "counts": counts,
            "pss_kib": [looks[0]["pss"], looks[-2]["pss"]], "descriptors": [looks[0]["descriptors"], looks[-2]["descriptors"]],
            **({"reasons": reloader.reasons[:5], "log": boot_log} if reloader.failures else {}),
        },
    )


class Reloader:
    """Replaces and reloads the program; counts failures. A context manager."""

    def __init__(self, server: Server, admin_port: int, key: str, programs: list[Path], place: Path):
        self._programs, self._place = programs, place
        self._key = key
        self._admin = HTTPConnection("127.0.0.1", admin_port, timeout=_TIMEOUT_S)
        # Drogon assigns connections to its loops in turns.
        self._clients = [HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S) for _ in range(2)]
        self.done = self.failures = self.stale = 0
        self.reasons: list[str] = []
        self._generation = 1

    def __enter__(self) -> "Reloader":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._admin, *self._clients):
            connection.close()

    def counts(self) -> dict[str, int]:
        """Reloads that failed, and answers after one that were not of the new generation."""
        return {"failed_reloads": self.failures, "stale": self.stale}

    def reload(self, times: int) -> None:
        """Reloads the other program, `times` times in turn."""
        for _ in range(times):
            # An odd generation has the first program.
            replace(self._place, self._programs[self._generation % 2])
            try:
                generation = self._ask()
            except (OSError, HTTPException, ValueError, KeyError) as error:
                self.failures += 1
                self.reasons.append(repr(error))
                self._admin.close()
                if self.failures > 10:
                    raise BenchError(f"reloads fail: {self.reasons[-1]}") from error
                # The reload may have taken effect nevertheless.
                self._generation = max(self._generation, *map(self._generation_of, self._clients))
                continue
            finally:
                self.done += 1
            if generation != self._generation + 1:
                raise BenchError(f"generation {generation} follows {self._generation}: the answers cannot be told apart")
            self._generation = generation
            self.stale += sum(self._generation_of(client) != generation for client in self._clients)

    def _ask(self) -> int:
        headers = {"authorization": f"Bearer {self._key}"}
        self._admin.request("POST", "/_mayfly/tenants/reloaded/reload", headers=headers)
        response = self._admin.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {body[:300].decode(errors='replace')}")
        return json.loads(body)["generation"]

    @staticmethod
    def _generation_of(client: HTTPConnection) -> int:
        try:
            client.request("GET", _PATH)
            response = client.getresponse()
            response.read()
            return int(response.getheader("x-mayfly-generation", "0"))
        except (OSError, HTTPException, ValueError):
            client.close()
            return 0


def replace(place: Path, program: Path) -> None:
    """Makes a name refer to another program in one step, as a deployment should. A link, so that nothing waits for a
    disk.
    """
    new = place.with_suffix(".new")
    new.symlink_to(program)
    os.replace(new, place)


def look(server: Server, reloads: int) -> dict:
    """Memory, descriptors and processes of the server now."""
    pid = server.pid
    return {
        "reloads": reloads, **process.memory_kib(pid), "descriptors": process.descriptors(pid), "processes": len(process.tree(pid)),
    }
