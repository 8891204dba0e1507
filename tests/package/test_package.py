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


@unittest.skipUnless(shutil.which("dpkg-deb") and shutil.which("dpkg-shlibdeps"), "no tools for Debian packages")
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
        run(*dpkg, "--remove", "mayfly", env=environment)
        self.assertFalse((root / "usr/bin/mayfly-server").exists())
        self.assertTrue((root / "etc/mayfly/tenants.json").exists(), "the operator's files stay")

    def test_the_command_and_the_documents_belong_together(self):
        self.assertRegex(run(self.mayfly, "--version"), r"^mayfly \d")
        self.assertIn("no error", run(self.mayfly, "check", self.root / "etc/mayfly/tenants.json"))
        for shell, file in (("bash", "bash-completion/completions/mayfly"), ("zsh", "zsh/vendor-completions/_mayfly")):
            if shutil.which(shell):
                run(shell, "-n", self.root / "usr/share" / file)
        if shutil.which("man"):
            for page in ("man1/mayfly-run.1", "man8/mayfly-server.8"):
                shown = run("man", "--local-file", self.root / "usr/share/man" / page, env=dict(os.environ, MANWIDTH="80"))
                self.assertIn("mayfly", shown)

    def test_the_service_names_files_of_the_package(self):
        unit = (self.root / "usr/lib/systemd/system/mayfly.service").read_text()
        program, argument = re.search(r"^ExecStart=/(\S+) /(\S+)$", unit, re.M).groups()
        self.assertTrue((self.root / program).exists() and (self.root / argument).exists())
        if shutil.which("systemd-analyze"):
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
            response = server.get("/hello")
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


@unittest.skipUnless(sys.platform == "linux", "Linux only")
class Prefix(unittest.TestCase):
    def test_an_installation_below_another_prefix_names_its_own_places(self):
        with tempfile.TemporaryDirectory(prefix="mayfly-prefix-") as prefix:
            run(CMAKE, "--install", BUILD, "--prefix", prefix)
            for file in ("bin/mayfly", "bin/mayfly-server", "include/mayfly.h", "lib/mayfly/sdk/lib/libmayfly.so"):
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
