# SPDX-License-Identifier: MIT OR Apache-2.0
"""The guide's first part, command by command, and a project of each language."""

import os
import re
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from mayfly_server import REPOSITORY, TENANTS, free_port

MAYFLY = REPOSITORY / "build/bin/mayfly"
ADDRESS = "127.0.0.1:8080"
PATIENCE_S = 120

#: One bash runs all commands, as a reader's does. After each, a line on standard output and error says that it ended.
SHELL = """
mayfly() { if [ "$1" = run ]; then "$MAYFLY" "$@" --listen "$LISTEN"; else "$MAYFLY" "$@"; fi; }
curl() { command curl --silent --show-error "$@"; }
set -m
"""
END = "the end of a command"


def commands(text):
    """The commands of the guide's first part, and the lines that follow each: what it prints, with `…` for anything."""
    part = text.split("## Ten minutes", 1)[1].split("\n## ", 1)[0]
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", part, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def pattern(lines):
    """What the output must match."""
    return "".join(r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)


def await_server(address):
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()) from error
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Guide(unittest.TestCase):
    def test_every_command_does_what_the_guide_says(self):
        steps = commands((REPOSITORY / "docs/guide.md").read_text())
        self.assertGreater(len(steps), 10)
        address = f"127.0.0.1:{free_port()}"
        with tempfile.TemporaryDirectory(prefix="mayfly-guide-") as directory:
            shell = subprocess.Popen(
                ["bash", "--norc"],
                cwd=directory,
                env=dict(os.environ, MAYFLY=str(MAYFLY), LISTEN=address),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                shell.stdin.write(SHELL)
                for command, expected in steps:
                    with self.subTest(command):
                        self.step(shell, command.replace(ADDRESS, address), expected, address)
            finally:
                shell.stdin.write("kill %1 2>/dev/null; wait\n")
                shell.stdin.close()
                shell.wait(PATIENCE_S)
                shell.stdout.close()

    def step(self, shell, command, expected, address):
        # A loaded machine takes longer than a reader's to notice a new program and to boot it.
        command = command.replace("sleep 2", "sleep 15")
        is_server = command.endswith("&")
        if is_server:
            command = command.removesuffix("&") + ">server.log 2>&1 &"
        shell.stdin.write(f"{command}\necho; echo '{END}'\n")
        shell.stdin.flush()
        output = []
        while (line := shell.stdout.readline()) != f"{END}\n":
            self.assertTrue(line, f"the shell ended: {output}")
            output.append(line)
        if is_server:
            await_server(address)
            return
        output = "".join(output).removesuffix("\n")
        if expected:
            self.assertRegex(output, rf"\A{pattern(expected)}\Z")


class Languages(unittest.TestCase):
    def check(self, language, *make):
        with tempfile.TemporaryDirectory(prefix="mayfly-new-") as directory:
            made = subprocess.run([MAYFLY, "new", "my-shop", "--lang", language], cwd=directory, capture_output=True, text=True)
            self.assertEqual((made.returncode, made.stderr), (0, ""), made.stderr)
            project = Path(directory, "my-shop")
            built = subprocess.run(["make", *make], cwd=project, capture_output=True, text=True)
            self.assertEqual(built.returncode, 0, built.stdout + built.stderr)
            address = f"127.0.0.1:{free_port()}"
            log = Path(directory, "log")
            with log.open("wb") as output:
                # A server is started anywhere, as one with the plugin is.
                command = [MAYFLY, "run", "--config", project / "mayfly.json", "--listen", address]
                server = subprocess.Popen(command, cwd="/", stdout=output, stderr=output)
            try:
                pages = [await_server(address) for _ in range(2)]
            except AssertionError as error:
                raise AssertionError(f"{error}\n{log.read_text()}") from error
            finally:
                server.terminate()
                server.wait(PATIENCE_S)
            self.assertTrue(all(page.startswith("Hello from my-shop") for page in pages), pages)
            self.assertNotIn(" WARN ", log.read_text())
            return pages

    def counts(self, pages):
        """The count that each page names: that of the frozen program, and one more."""
        (first,), (second,) = (re.findall(r"request (\d+) of this copy", page) for page in pages)
        self.assertEqual(first, second)

    def test_c(self):
        self.counts(self.check("c"))

    def test_cpp(self):
        self.counts(self.check("cpp"))

    def test_rust(self):
        self.counts(self.check("rust"))

    def test_js(self):
        pages = self.check("js")
        self.counts(pages)
        self.assertNotEqual(*(page.split("id ")[1] for page in pages))

    def test_python(self):
        self.counts(self.check("python"))

    def test_pythran(self):
        # With the samples' own Pythran.
        venv = TENANTS / "pythran/venv"
        self.assertEqual(set(self.check("pythran", "-o", "requirements.txt", f"VENV={venv}")), {"Hello from my-shop\n"})


if __name__ == "__main__":
    unittest.main()
