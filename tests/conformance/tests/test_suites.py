# SPDX-License-Identifier: MIT OR Apache-2.0
"""A few modules of each suite, inside, with the suite's list."""

import os
import unittest

from conformance import cli

#: What sees most of the personality in a minute.
CPYTHON = ["test.test_posix", "test.test_mmap", "test.test_select", "test.test_thread", "test.test_tempfile"]
GO = ["io/fs", "os/signal", "path/filepath"]


class Suites(unittest.TestCase):
    def agrees(self, suite: str, modules: list[str]) -> None:
        program = os.environ["MAYFLY_RUN_TO_END"]  # scripts/test builds it
        patterns = [argument for module in modules for argument in ("--modules", module)]
        self.assertEqual(cli.main([suite, "--again", "--run-to-end", program, *patterns]), 0)

    def test_a_part_of_cpythons(self) -> None:
        self.agrees("cpython", CPYTHON)

    def test_a_part_of_gos(self) -> None:
        self.agrees("go", GO)
