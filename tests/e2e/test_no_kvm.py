# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tenants that ask for a KVM that is not usable: the server starts, serves what needs none, and says what to do."""

import os
import stat
import tempfile
import unittest
from pathlib import Path

from mayfly_server import Server, tenant

# Root may open any file, unless it gives this up.
WITHOUT_ROOTS_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class NoKvm:
    """What holds whatever the cause is."""

    launcher = []

    @classmethod
    def setUpClass(cls):
        cls.directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-kvm-")))
        tenants = [tenant("hello", "/hello"), tenant("echo", "/echo")]
        environment = {"MAYFLY_KVM_PATH": str(cls.kvm_path())}
        cls.server = cls.enterClassContext(
            Server(tenants, config={"engine": "kvm"}, environment=environment, launcher=cls.launcher)
        )

    def test_the_vanilla_route_is_served(self):
        self.assertEqual(self.server.get("/").status, 200)

    def test_tenants_routes_answer_503_with_the_reason(self):
        for path in ("/hello", "/hello/below", "/echo"):
            with self.subTest(path):
                response = self.server.get(path)
                self.assertEqual(response.status, 503)
                self.assertEqual(response.header("retry-after"), "1")
                self.assertEqual(response.json()["error"], "unavailable")
                self.assertRegex(response.json()["reason"], self.cause)

    def test_other_routes_are_a_404_as_ever(self):
        self.assertEqual(self.server.get("/nowhere").status, 404)

    def test_the_log_says_at_start_what_to_do(self):
        self.server.await_log(self.cause)
        self.server.await_log(self.remedy)


class Missing(NoKvm, unittest.TestCase):
    cause = "(?i)no such file|does not exist|not found"
    remedy = "(?i)kvm_amd|kvm_intel|modprobe|load|virtualisation|virtualization"

    @classmethod
    def kvm_path(cls):
        return "/nonexistent"


class Forbidden(NoKvm, unittest.TestCase):
    cause = "(?i)permission"
    remedy = "(?i)group|usermod|setfacl|permission"
    launcher = WITHOUT_ROOTS_RIGHTS if os.geteuid() == 0 else []

    @classmethod
    def kvm_path(cls):
        if os.geteuid() != 0:
            return "/dev/console"  # A device that is root's everywhere.
        path = cls.directory / "kvm"
        os.mknod(path, stat.S_IFCHR, os.makedev(10, 232))
        return path


class SomethingElse(NoKvm, unittest.TestCase):
    cause = "(?i)kvm"
    remedy = "(?i)kvm"

    @classmethod
    def kvm_path(cls):
        return "/dev/null"


if __name__ == "__main__":
    unittest.main()
