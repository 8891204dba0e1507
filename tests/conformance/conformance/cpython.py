# SPDX-License-Identifier: MIT OR Apache-2.0
"""CPython's tests: Debian's python3.11 and its test suite, module by module."""

import json
import subprocess
import time
from pathlib import Path

from . import places
from .places import Program
from .verdicts import Run, Test, Verdict, owner

MARK = "\x1d"

_PACKAGES = ("libpython3.11-testsuite", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
_GUEST = places.HERE / "guest"
_LOADER = "unittest.loader."


class Lines:
    """Reads what guest/cpython_tests.py prints."""

    def __init__(self) -> None:
        self.run = Run()
        #: Whether the program came to its own end.
        self.ended = False
        self._current: str | None = None
        self._began = 0.0
        self._process = False
        self._started = False
        #: A second process was asked for since the last test.
        self._process_before = False

    def current(self) -> str | None:
        return self._current

    def line(self, line: str) -> None:
        if not line.startswith(MARK):
            return
        kind, name, told = [*line[len(MARK) :].split(" ", 2), "", ""][:3]
        if kind == "start":
            self._start(name)
        elif kind == "process":
            if self._current is None:
                self._process_before = True
            else:
                self._process = True
        elif kind == "end":
            self.ended = True
        elif kind in (verdict.value for verdict in Verdict):
            self._verdict(Verdict(kind), name, told)

    def _start(self, name: str) -> None:
        if self._process_before and not self._started:
            self.run.process_setups.add("")
        self._started = True
        self._current, self._began, self._process = name, time.monotonic(), False
        if self._process_before:
            self.run.process_setups.add(owner(name))
            self._process_before = False

    def _verdict(self, verdict: Verdict, name: str, told: str) -> None:
        if name.startswith(_LOADER):
            self.run.setups[""] = told
            self._current = None
        elif name == self._current:
            cause = told if verdict is not Verdict.OK else ""
            self.run.tests[name] = Test(verdict, cause, self._process, time.monotonic() - self._began)
            self._current = None
        elif self._current is None:
            # setUpClass_(test.test_os.FileTests), setUpModule_(test.test_os)
            about = name.partition("(")[2].rstrip(")") if name.startswith("setUpClass") else ""
            self.run.setups[about] = told

    def broke_off(self, how: str) -> None:
        """The program ended otherwise than by itself."""
        if self._current is not None:
            self.run.tests[self._current] = Test(Verdict.FAILED, how, self._process)
            self._current = None
        else:
            self.run.setups.setdefault("", how)


class Suite:
    """The suite as the command line runs it."""

    name = "cpython"
    title = "CPython 3.11"
    bar = 97.0

    def __init__(self) -> None:
        self._root = places.unpack("conformance-cpython", *_PACKAGES)
        self._library = self._root / "usr/lib/python3.11"
        self.key = places.digest((self._root / "packages").read_bytes(), (_GUEST / "cpython_tests.py").read_bytes())
        self._compile_once()

    def _compile_once(self) -> None:
        """Makes what the packages' installation would make: modules that are compiled, which nothing else can write."""
        done = self._root / "compiled"
        if not done.exists():
            command = [str(self._root / "usr/bin/python3.11"), "-m", "compileall", "-q", "-j2", str(self._library)]
            # It fails for files that are wrong on purpose.
            environment = {"PYTHONHOME": str(self._root / "usr")}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            done.touch()

    def modules(self) -> list[str]:
        found = []
        for path in sorted((self._library / "test").glob("test_*")):
            if path.name == "test_asyncio":
                found += [f"test.test_asyncio.{part.stem}" for part in sorted(path.glob("test_*.py"))]
            elif path.suffix == ".py" or (path / "__init__.py").exists():
                found.append(f"test.{path.stem}")
        return found

    def prepare(self, module: str) -> str | None:
        """Nothing is to be compiled."""

    def reader(self, module: str) -> Lines:
        return Lines()

    def program(self, module: str, plan: Path, only: list[str] | None, without: list[str]) -> Program:
        plan.write_text(json.dumps({"without": without} if only is None else {"only": only}))
        return Program(
            [str(self._root / "usr/bin/python3.11"), str(_GUEST / "cpython_tests.py"), module, str(plan)],
            {"PYTHONHOME": str(self._root / "usr"), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            [self._root, _GUEST, plan.parent],
            mounts={"/etc/python3.11": self._root / "etc/python3.11"},
        )
