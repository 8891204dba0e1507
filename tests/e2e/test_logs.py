# SPDX-License-Identifier: MIT OR Apache-2.0
"""What programs print."""

import unittest

from mayfly_server import Server, tenant


class Logs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tenants = [
            tenant("alpha", "/alpha", "faults", args=["boot:print-lines=2"]),
            tenant("beta", "/beta", "faults", limits={"log_bytes_per_second": 20_000}),
        ]
        cls.server = cls.enterClassContext(Server(tenants))

    def test_a_line_carries_its_tenants_name(self):
        self.server.get("/beta/print-lines?3")
        line = self.server.await_log(r".*line 2.*").group()
        self.assertIn("beta", line)
        self.assertNotIn("alpha", line)

    def test_what_is_printed_at_boot_is_logged_too(self):
        self.assertIn("alpha", self.server.await_log(r".*line 1.*").group())

    def test_standard_error_is_logged_too(self):
        self.server.get("/alpha/print-error?1")
        self.server.await_log(r"ppppp.*alpha")

    def test_a_program_cannot_write_control_characters_into_the_log(self):
        self.server.get("/alpha/print-binary")
        self.server.await_log("red")
        raw = self.server.log()
        for character in ("\x1b", "\0", "\x07", "\r"):
            self.assertNotIn(character, raw)

    def test_a_program_that_prints_without_end_is_cut_short(self):
        before = len(self.server.log())
        for _ in range(20):
            self.assertIn(self.server.get("/beta/print?1000").status, (200, 504))
        self.assertLess(len(self.server.log()) - before, 5_000_000)
        self.assertEqual(self.server.get("/beta/ok").status, 200)


if __name__ == "__main__":
    unittest.main()
