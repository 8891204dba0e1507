# SPDX-License-Identifier: MIT OR Apache-2.0
"""The tests of Go's standard library: Debian's compiler and sources, package by package."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import places
from .errors import ConformanceError
from .places import Program
from .verdicts import Run, Test, Verdict

_PACKAGES = ("golang-1.19-go", "golang-1.19-src")
_BUILD = places.BUILD / "go"
_BEGAN = re.compile(r"^=== (RUN|CONT|PAUSE)\s+(\w+)")
# A test may print without an end of line before it. Subtests have a slash in their names.
_ENDED = re.compile(r"--- (PASS|FAIL|SKIP): ([A-Z]\w*) \(([\d.]+)s\)$")
_VERDICTS = {"PASS": Verdict.OK, "FAIL": Verdict.FAILED, "SKIP": Verdict.SKIPPED}
# What Go says when it cannot start a program.
_REFUSED = re.compile(r"fork/exec .*function not implemented")
_TOLD = re.compile(r"^\s+\w+\.go:\d+: (.*)")

# A test runs in its package's directory, and a program inside begins in the root. Packages have variables that are made
# of files in the directory: this one is the first to be made, since its file is the first.
_DIRECTORY = """package {package}

import "os"

var _ = func() int {{
	if directory := os.Getenv("CONFORMANCE_DIRECTORY"); directory != "" {{
		if err := os.Chdir(directory); err != nil {{
			panic(err)
		}}
	}}
	return 0
}}()
"""
_DIRECTORY_FILE = "0_conformance_test.go"


class Output:
    """Reads what a test binary prints with -test.v and -test.parallel=1: one test is under way at a time."""

    def __init__(self, package: str) -> None:
        self.run = Run()
        self.ended = False
        self._package = package
        self._current: str | None = None
        #: The test whose lines come: the one under way, or the one that has just ended, which tells its log then.
        self._about: str | None = None
        self._told: dict[str, str] = {}
        self._refused: set[str] = set()
        self._panic = ""

    def current(self) -> str | None:
        return self._current

    def line(self, line: str) -> None:
        if began := _BEGAN.match(line):
            state, test = began.groups()
            self._about = self._current = None if state == "PAUSE" else test
        elif ended := _ENDED.search(line):
            how, test, seconds = ended.groups()
            self.run.tests[self._name(test)] = Test(_VERDICTS[how], seconds=float(seconds))
            self._about, self._current = test, None
            self._settle(test)
        elif line in ("PASS", "FAIL") and self._current is None:
            self.ended = True
        elif self._about is not None:
            self._tell(self._about, line)

    def _name(self, test: str) -> str:
        return f"{self._package}.{test}"

    def _tell(self, test: str, line: str) -> None:
        if _REFUSED.search(line):
            self._refused.add(test)
        died = line.startswith(("panic: ", "fatal error: "))
        told = line if died else (match := _TOLD.match(line)) and match.group(1)
        if told:
            self._told.setdefault(test, told)
        if died:
            self._panic = self._panic or line
        self._settle(test)

    def _settle(self, test: str) -> None:
        seen = self.run.tests.get(self._name(test))
        if seen is not None and seen.verdict is not Verdict.OK:
            seen.process = test in self._refused
            seen.cause = self._told.get(test, "")[:300]

    def broke_off(self, how: str) -> None:
        """The binary ended before its tests did."""
        if self._current is not None:
            test, self._current = self._current, None
            cause = f"{self._panic} ({how})" if self._panic else how
            self.run.tests[self._name(test)] = Test(Verdict.FAILED, cause[:300], test in self._refused)
        else:
            self.run.setups.setdefault("", how)


@dataclass(frozen=True)
class Package:
    """A package as `go list` has it."""

    path: str
    name: str
    directory: Path


class Suite:
    """The suite as the command line runs it."""

    name = "go"
    title = "Go 1.19"
    bar = 99.0

    def __init__(self) -> None:
        self._root = places.unpack("conformance-go", *_PACKAGES)
        self._goroot = self._root / "usr/lib/go-1.19"
        self.key = places.digest((self._root / "packages").read_bytes(), _DIRECTORY.encode())

    @cached_property
    def _below_os(self) -> set[str]:
        """The packages that cannot import os, and whose own tests change the directory when they begin."""
        return {"os", *self._go("list", "-deps", "os").split()}

    @cached_property
    def _packages(self) -> dict[str, Package]:
        fields = "{{.ImportPath}}\t{{.Name}}\t{{.Dir}}\t{{len .TestGoFiles}}{{len .XTestGoFiles}}"
        packages = {}
        for line in self._go("list", "-f", fields, "std").splitlines():
            path, name, directory, tests = line.split("\t")
            if tests != "00" and not path.startswith("vendor/"):
                packages[path] = Package(path, name, Path(directory))
        return packages

    def _go(self, *arguments: str) -> str:
        # Static, so that the C library of this machine is no part of the comparison.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(_BUILD),
            "GOROOT": str(self._goroot),
            "GOCACHE": str(_BUILD / "cache"),
            "GOPATH": str(_BUILD / "path"),
            "GOPROXY": "off",
            "CGO_ENABLED": "0",
        }
        _BUILD.mkdir(parents=True, exist_ok=True)
        command = [str(self._goroot / "bin/go"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConformanceError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def modules(self) -> list[str]:
        return sorted(self._packages)

    def _binary(self, module: str) -> Path:
        return _BUILD / self.key[:12] / f"{module.replace('/', '_')}.test"

    def prepare(self, module: str) -> None:
        """Compiles the package's tests, once."""
        package, binary = self._packages[module], self._binary(module)
        if binary.exists():
            return
        binary.parent.mkdir(parents=True, exist_ok=True)
        source, overlay = binary.with_suffix(".go"), binary.with_suffix(".json")
        name = f"{package.name}_test" if module in self._below_os else package.name
        source.write_text(_DIRECTORY.format(package=name))
        overlay.write_text(json.dumps({"Replace": {str(package.directory / _DIRECTORY_FILE): str(source)}}))
        new = binary.with_suffix(".new")
        self._go("test", "-c", "-vet=off", "-ldflags=-w", f"-overlay={overlay}", "-o", str(new), module)
        if new.exists():  # there are packages whose tests are for other systems
            new.rename(binary)

    def _all(self, module: str) -> list[str]:
        command = [str(self._binary(module)), "-test.list=."]
        listed = subprocess.run(command, env={}, cwd=self._packages[module].directory, capture_output=True, text=True, check=True)
        return [f"{module}.{line}" for line in listed.stdout.splitlines() if re.fullmatch(r"(Test|Example)\w*", line)]

    def reader(self, module: str) -> Output:
        return Output(module)

    def program(self, module: str, plan: Path, only: list[str] | None, without: list[str]) -> Program:
        package, binary = self._packages[module], self._binary(module)
        if only is None and without:
            only = [name for name in self._all(module) if name not in without]
        arguments = [str(binary), "-test.v", "-test.short", "-test.parallel=1", "-test.timeout=0"]
        if only is not None:
            names = "|".join(name.removeprefix(f"{module}.") for name in only)
            arguments.append(f"-test.run=^({names})$")
        environment = {
            "GOROOT": str(self._goroot),
            "PWD": str(package.directory),
            "CONFORMANCE_DIRECTORY": str(package.directory),
            # Tests that would compile programs are skipped.
            "GO_GCFLAGS": "none",
        }
        return Program(arguments, environment, [self._root, binary.parent], package.directory)
