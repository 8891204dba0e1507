# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the Debian package, installs it into a scratch root, and uses what is in it. Run by ctest."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import mayfly_server  # noqa: E402

REPOSITORY = HERE.parent.parent
BUILD = Path(os.environ["MAYFLY_TEST_BUILD"])
CMAKE = os.environ["MAYFLY_TEST_CMAKE"]

FILES = [
    "etc/mayfly/server.json",
    "etc/mayfly/tenants.json",
    "usr/bin/mayfly",
    "usr/bin/mayfly-server",
    "usr/include/mayfly.h",
    "usr/lib/mayfly/sdk/deno/mayfly.js",
    "usr/lib/mayfly/sdk/js/fresh.mjs",
    "usr/lib/mayfly/sdk/lib/libmayfly-fresh.so",
    "usr/lib/mayfly/sdk/lib/libmayfly.so",
    "usr/lib/mayfly/sdk/mayfly.h",
    "usr/lib/mayfly/sdk/node/mayfly.mjs",
    "usr/lib/mayfly/sdk/python/mayfly.py",
    "usr/lib/mayfly/sdk/rust/src/lib.rs",
    "usr/lib/systemd/system/mayfly.service",
    "usr/lib/sysusers.d/mayfly.conf",
    "usr/share/bash-completion/completions/mayfly",
    "usr/share/fish/vendor_completions.d/mayfly.fish",
    "usr/share/man/man1/mayfly-run.1",
    "usr/share/man/man1/mayfly.1",
    "usr/share/man/man8/mayfly-server.8",
    "usr/share/zsh/vendor-completions/_mayfly",
]

APP = """import sys
sys.path.insert(0, "/sdk/python")
import mayfly
mayfly.serve(lambda request: mayfly.Response(f"packaged {request.path}"))
"""


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="mayfly-package-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        run(Path(CMAKE).with_name("cpack"), "--config", BUILD / "CPackConfig.cmake", "-B", cls.directory)
        (cls.package,) = cls.directory.glob("mayfly_*.deb")
        cls.root = cls.directory / "root"
        run("dpkg-deb", "--extract", cls.package, cls.root)
        cls.mayfly = cls.root / "usr/bin/mayfly"

    def control(self, field):
        return run("dpkg-deb", "--field", self.package, field).strip()

    def test_it_has_what_a_user_needs_and_nothing_of_the_build(self):
        missing = [file for file in FILES if not (self.root / file).is_file()]
        self.assertEqual(missing, [])
        surplus = [file for file in self.root.rglob("*") if file.suffix in (".a", ".pyc") or file.name == "node_modules"]
        self.assertEqual(surplus, [])

    def test_its_fields_are_debians(self):
        self.assertEqual((self.control("Package"), self.control("Architecture")), ("mayfly", "amd64"))
        self.assertRegex(self.control("Depends"), r"\blibc6 \(>= ")
        with tempfile.TemporaryDirectory() as control:
            run("dpkg-deb", "--control", self.package, control)
            conffiles = Path(control, "conffiles").read_text().split()
            self.assertTrue(os.access(Path(control, "postinst"), os.X_OK))
        self.assertEqual(conffiles, ["/etc/mayfly/server.json", "/etc/mayfly/tenants.json"])

    def test_dpkg_installs_and_removes_it(self):
        root = self.directory / "dpkg"
        (root / "var/lib/dpkg").mkdir(parents=True)
        for name in ("status", "available"):
            (root / "var/lib/dpkg" / name).touch()
        dpkg = ("dpkg", f"--root={root}", "--force-depends", "--force-not-root", "--force-script-chrootless")
        environment = dict(os.environ, PATH=f"/usr/sbin:/sbin:{os.environ['PATH']}")
        run(*dpkg, "--install", self.package, env=environment)
        self.assertTrue((root / "usr/bin/mayfly-server").exists())
        self.assertRegex((root / "etc/group").read_text(), "(?m)^kvm:", "the service's group")
        run(*dpkg, "--remove", "mayfly", env=environment)
        self.assertFalse((root / "usr/bin/mayfly-server").exists())
        self.assertTrue((root / "etc/mayfly/tenants.json").exists(), "the operator's files stay")

    def test_the_command_and_the_documents_belong_together(self):
        self.assertRegex(run(self.mayfly, "--version"), r"^mayfly \d")
        self.assertIn("no error", run(self.mayfly, "check", self.root / "etc/mayfly/tenants.json"))
        for shell, file in (("bash", "bash-completion/completions/mayfly"), ("zsh", "zsh/vendor-completions/_mayfly")):
            run(shell, "-n", self.root / "usr/share" / file)
        for page in ("man1/mayfly-run.1", "man8/mayfly-server.8"):
            shown = run("man", "--local-file", self.root / "usr/share/man" / page, env=dict(os.environ, MANWIDTH="80"))
            self.assertIn("mayfly", shown)

    def test_the_service_names_files_of_the_package(self):
        unit = (self.root / "usr/lib/systemd/system/mayfly.service").read_text()
        program, argument = re.search(r"^ExecStart=/(\S+) /(\S+)$", unit, re.M).groups()
        self.assertTrue((self.root / program).exists() and (self.root / argument).exists())
        programs = set(re.findall(r"^Exec\w+=(\S+)", unit, re.M))
        self.assertEqual(programs, {f"/{program}", "/bin/sh"}, "a machine may have no other")
        groups = re.search(r"^SupplementaryGroups=(.*)$", unit, re.M).group(1).split()
        made = re.findall(r"^g (\S+)", (self.root / "usr/lib/sysusers.d/mayfly.conf").read_text(), re.M)
        self.assertEqual(groups, made, "systemd does not start a service in a group that does not exist")
        result = subprocess.run(
            ["systemd-analyze", "verify", f"--root={self.root}", "mayfly.service"], capture_output=True, text=True
        )
        self.assertNotIn("Unknown key", result.stderr)

    def test_a_program_of_the_packages_sdk_is_served_by_the_packages_server(self):
        (self.directory / "app").mkdir()
        (self.directory / "app/app.py").write_text(APP)
        mounts = [{"host": f"/{name}"} for name in ("lib", "lib64", "usr/lib")]
        mounts += [{"host": str(self.directory / "app"), "at": "/app"}]
        mounts += [{"host": str(self.root / "usr/lib/mayfly/sdk"), "at": "/sdk"}]
        hello = {
            "name": "hello", "path": "/hello", "program": "/usr/bin/python3", "args": ["-B", "/app/app.py"], "mounts": mounts,
        }
        with mayfly_server.Server([hello], executable=self.root / "usr/bin/mayfly-server") as server:
            response = server.await_boot("/hello")
            self.assertEqual((response.status, response.body), (200, b"packaged /hello"))

    def test_a_new_project_is_made_by_the_packages_command(self):
        run(self.mayfly, "new", self.directory / "shop", "--lang", "c")
        run("make", "-C", self.directory / "shop")
        server = subprocess.Popen(
            [self.mayfly, "run", "--listen", "127.0.0.1:0"], cwd=self.directory / "shop", stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        try:
            address = re.search(r"http://\S+/", server.stdout.readline()).group()
            with urllib.request.urlopen(address, timeout=30) as answer:
                self.assertIn(b"Hello from shop", answer.read())
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()


class AfterInstallation(unittest.TestCase):
    """packaging/postinst, with the tools that a machine may have or not. Each writes down how it was called."""

    def postinst(self, *tools, groups="", status=0):
        """The calls of the tools, each of which ends with the status, and what the script wrote to standard error."""
        with tempfile.TemporaryDirectory(prefix="mayfly-postinst-") as directory:
            tools_directory, root = Path(directory, "bin"), Path(directory, "root")
            tools_directory.mkdir()
            (root / "etc").mkdir(parents=True)
            (root / "etc/group").write_text(groups)
            (tools_directory / "grep").symlink_to(shutil.which("grep"))
            for tool in tools:
                (tools_directory / tool).write_text(f'#!/bin/sh\necho {tool} "$@" >>{directory}/calls; exit {status}\n')
                (tools_directory / tool).chmod(0o755)
            done = subprocess.run(
                ["/bin/sh", REPOSITORY / "packaging/postinst", "configure", ""],
                env={"PATH": str(tools_directory), "DPKG_ROOT": str(root)}, capture_output=True, text=True,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            calls = Path(directory, "calls")
            called = calls.read_text().replace(str(root), "ROOT").splitlines() if calls.exists() else []
            return called, done.stderr

    def test_it_makes_the_services_group_below_dpkgs_root(self):
        sysusers, groupadd = "systemd-sysusers --root=ROOT mayfly.conf", "groupadd --system --prefix ROOT kvm"
        self.assertEqual(self.postinst("systemd-sysusers", "groupadd", "systemctl"), ([sysusers], ""))
        self.assertEqual(self.postinst("groupadd"), ([groupadd], ""))
        self.assertEqual(self.postinst("systemd-sysusers", "groupadd", groups="kvm:x:104:\n"), ([], ""))
        called, said = self.postinst("systemd-sysusers", "groupadd", status=1)
        self.assertEqual(called, [sysusers, groupadd])
        self.assertIn("cannot make the group kvm", said)

    def test_it_succeeds_without_any_tool(self):
        called, said = self.postinst()
        self.assertEqual(called, [])
        self.assertIn("cannot make the group kvm", said)


class Prefix(unittest.TestCase):
    def test_an_installation_below_another_prefix_names_its_own_places(self):
        with tempfile.TemporaryDirectory(prefix="mayfly-prefix-") as prefix:
            run(CMAKE, "--install", BUILD, "--prefix", prefix)
            for file in ("bin/mayfly", "bin/mayfly-server", "include/mayfly.h", "lib/mayfly/sdk/lib/libmayfly.so",
                         "lib/sysusers.d/mayfly.conf"):
                self.assertTrue(Path(prefix, file).is_file(), file)
            self.assertIn(f"ExecStart={prefix}/bin/mayfly-server {prefix}/etc/mayfly/server.json",
                          Path(prefix, "lib/systemd/system/mayfly.service").read_text())
            # The operator's file stays.
            tenants = Path(prefix, "etc/mayfly/tenants.json")
            tenants.write_text('{"tenants": []} // mine')
            run(CMAKE, "--install", BUILD, "--prefix", prefix)
            self.assertTrue(tenants.read_text().endswith("// mine"))


if __name__ == "__main__":
    unittest.main()
