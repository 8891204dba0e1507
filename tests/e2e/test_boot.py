# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that do not come up: their tenant answers 503 and says why, and the others serve."""

import struct
import tempfile
import unittest
from pathlib import Path

from mayfly_server import TENANTS, Server, tenant

HELLO = TENANTS / "hello/hello"


def elf_with(offset, value):
    """hello's ELF file with other bytes at `offset`."""
    image = bytearray(HELLO.read_bytes())
    image[offset : offset + len(value)] = value
    return bytes(image)


def program_files():
    """Programs that are none: what the file is, and what the reason has to name."""
    image = HELLO.read_bytes()
    return {
        "empty": (b"", "ELF"),
        "text": (b"#!/bin/sh\necho hello\n", "ELF"),
        "cut-in-header": (image[:40], "truncated|ELF"),
        "cut-in-program-headers": (image[:100], "truncated|ELF|program header"),
        "cut-in-a-segment": (image[: len(image) // 8], "truncated|ELF|segment"),
        "32-bit": (elf_with(4, b"\x01"), "64|class|bit"),
        "big-endian": (elf_with(5, b"\x02"), "endian"),
        "aarch64": (elf_with(18, struct.pack("<H", 183)), "machine|x86|aarch64|architecture"),
        "relocatable": (elf_with(16, struct.pack("<H", 1)), "executable|type"),
    }


BEHAVIOURS = {
    "boot:exit=3": "exit",
    "boot:null": "killed by SIGSEGV .* access to 0x0",
    "boot:ud2": "killed by SIGILL",
    # Of CPU time, or of the wall-clock time for it, where other work takes the processors.
    "boot:loop": "within (1|4)s .*the limit boot_ms",
    "boot:loop-syscall": "within (1|4)s .*the limit boot_ms",
    "boot:alloc-mmap": "memory",
    "boot:alloc-malloc": "memory",
}


class Boot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-programs-")))
        cls.expected = {}
        tenants = [tenant("hello", "/hello")]

        def add(name, reason, **keys):
            path = f"/broken/{len(cls.expected)}"
            cls.expected[path] = (name, reason)
            tenants.append({"name": name, "path": path, **keys})

        for name, (content, reason) in program_files().items():
            (directory / name).write_bytes(content)
            add(name, reason, program=str(directory / name))
        for number, (behaviour, reason) in enumerate(BEHAVIOURS.items()):
            # Only those that loop are to run into this limit. Memory comes at some tens of microseconds a page on a
            # paging-based KVM, more on a busy machine.
            limits = {"boot_ms": 1000 if "loop" in behaviour else 10_000, "boot_memory_mib": 4}
            add(f"boots-badly-{number}", reason, program=str(TENANTS / "faults/faults"), args=[behaviour], limits=limits)
        add("missing", "No such file", program=str(directory / "missing"))
        add("a-directory", "directory|regular file", program=str(directory))
        cls.server = cls.enterClassContext(Server(tenants))

    def test_a_tenant_that_fails_to_boot_answers_503_with_the_reason(self):
        for path, (name, reason) in self.expected.items():
            with self.subTest(name):
                response = self.server.await_boot(path)
                self.assertEqual(response.status, 503)
                self.assertEqual(response.header("retry-after"), "1")
                body = response.json()
                self.assertEqual(body["error"], "unavailable")
                self.assertRegex(body["reason"].lower(), reason.lower())

    def test_the_log_names_the_tenant_and_the_reason(self):
        for path in self.expected:
            self.server.await_boot(path)
        for name, reason in self.expected.values():
            with self.subTest(name):
                self.server.await_log(rf"(?i)(?:{name}\b.*(?:{reason})|(?:{reason}).*\b{name}\b)")

    def test_the_others_serve(self):
        self.assertEqual(self.server.get("/hello").body, b"Hello World!")
        self.assertEqual(self.server.get("/").status, 200)


if __name__ == "__main__":
    unittest.main()
