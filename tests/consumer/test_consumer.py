# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the consumer project and has it serve one request. Run by ctest, which sets the environment."""

import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import mayfly_server  # noqa: E402

CMAKE = os.environ["MAYFLY_TEST_CMAKE"]
BUILD = Path(os.environ["MAYFLY_TEST_BUILD"])  # the build tree of Mayfly itself
OPTIONS = os.environ["MAYFLY_TEST_CMAKE_OPTIONS"].split("|")
PREFIX_PATH = os.environ["MAYFLY_TEST_PREFIX_PATH"]


def run(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")


class Consumer:
    """What holds for both ways. `options` says how the project finds Mayfly."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="mayfly-consumer-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        run(CMAKE, "-S", HERE, "-B", cls.directory / "build", *OPTIONS, *cls.options())
        run(CMAKE, "--build", cls.directory / "build", "--target", "consumer", "linked-away")

    def test_the_server_answers_a_tenants_route(self):
        # Without an engine: that the plugin is there is all that is asked.
        tenants = [{"name": "hello", "path": "/hello", "program": "hello"}]
        with mayfly_server.Server(
            tenants,
            executable=self.directory / "build/consumer",
            environment={"MAYFLY_KVM_PATH": "/nonexistent", "MAYFLY_ENGINE": "kvm"},
        ) as server:
            response = server.get("/hello")
            self.assertEqual(response.status, 503)
            self.assertEqual(response.json()["error"], "unavailable")
            # And the program's own route, which asks the plugin.
            report = server.get("/report").json()
            self.assertEqual(report["host"]["state"], "unusable")
            self.assertEqual([(tenant["name"], tenant["requests"]) for tenant in report["tenants"]], [("hello", 1)])
            self.check_advices(server)

    def check_advices(self, server):
        """Requests find their tenants though the program holds some up, and answers others itself."""

        def client(number):
            with server.connect() as connection:
                for i in range(50):
                    path, tenants = (("/hello", True), ("/nowhere", False), ("/hello/deep/er", True))[i % 3]
                    headers = [("x-look-up", "yes")] if (i + number) % 2 else []
                    response = connection.fetch("GET", path, headers=headers)
                    if (response.status, b"unavailable" in response.body) != (503 if tenants else 410, tenants):
                        return f"{path}: {response}"
                    if i % 10 == 0 and connection.fetch("GET", "/hello", headers=[("x-stranger", "yes")]).status != 403:
                        return "a stranger"
                    # The plugin's own route in Drogon, under which tenants' requests go: a 404 if a client asks for it.
                    if connection.fetch("GET", "/_mayfly/tenant", headers=headers).status != 410:
                        return "the plugin's own route"
            return None

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            self.assertEqual([wrong for wrong in clients.map(client, range(8)) if wrong], [])

    @unittest.skipUnless(Path(mayfly_server.program_path("hello")).exists(), "the tenants are not built")
    def test_a_thread_that_answers_404_gets_no_workers(self):
        hello = mayfly_server.tenant("hello", "/hello", boot="start")
        with mayfly_server.Server([hello], executable=self.directory / "build/consumer") as server:

            def report():
                return server.get("/report").json()

            server.await_that(lambda: report()["tenants"][0]["forks"] == 2, "the two loops have no workers")
            before = report()
            for number in range(1, 11):
                self.assertEqual(server.fetch("GET", "/x", headers=[("x-unknown", "yes")]).status, 404)
                counted = before["unrouted"] + number
                server.await_that(lambda n=counted: report()["unrouted"] == n, "a 404 was not counted")
            time.sleep(0.3)  # As long as the threads are there: workers of theirs would be forked by now.
            self.assertEqual(report()["tenants"][0]["forks"], before["tenants"][0]["forks"])

    def test_an_application_keeps_the_default_handler_that_it_has(self):
        hello = {"name": "hello", "path": "/hello", "program": "hello"}
        environment = {"MAYFLY_KVM_PATH": "/nonexistent", "MAYFLY_ENGINE": "kvm", "CONSUMER_KEEPS_DROGONS_HANDLER": "1"}
        executable = self.directory / "build/consumer"
        with mayfly_server.Server([hello], executable=executable, environment=environment) as server:
            self.assertEqual(server.get("/nowhere").status, 410)
            self.assertEqual(server.get("/hello").status, 503)
        # If there is a default tenant from the start, it comes first.
        default = {"name": "rest", "default": True, "program": "hello"}
        with mayfly_server.Server([hello, default], executable=executable, environment=environment) as server:
            self.assertEqual(server.get("/nowhere").status, 503)

    def test_the_applications_websockets_go_on(self):
        hello = {"name": "hello", "path": "/hello", "program": "hello"}
        environment = {"MAYFLY_KVM_PATH": "/nonexistent", "MAYFLY_ENGINE": "kvm"}
        with (
            mayfly_server.Server([hello], executable=self.directory / "build/consumer", environment=environment) as server,
            server.socket() as connection,
        ):
            connection.sendall(
                b"GET /parrot HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: a=1\r\n\r\n"
            )
            received = connection.recv(4096)
            self.assertTrue(received.startswith(b"HTTP/1.1 101 "), received)
            # Text, in whole frames and in two, with a mask of zeros: what looks like HTTP's end of a line is none here.
            for sent in (b"\x81\x87\0\0\0\0\r\n\r\nabc", b"\x01\x84\0\0\0\0\r\n\r\n" + b"\x80\x83\0\0\0\0abc") * 3:
                for byte in sent:
                    connection.sendall(bytes([byte]))
                received = b""
                while len(received) < 9:
                    received += connection.recv(4096)
                self.assertEqual(received, b"\x81\x07\r\n\r\nabc")

    def test_an_application_may_be_told_of_connections(self):
        hello = {"name": "hello", "path": "/hello", "program": "hello"}
        environment = {"MAYFLY_KVM_PATH": "/nonexistent", "MAYFLY_ENGINE": "kvm"}
        executable = self.directory / "build/consumer"
        with mayfly_server.Server([hello], executable=executable, environment=environment) as server:
            with server.connect() as one, server.connect() as another:
                self.assertEqual(one.fetch("GET", "/hello").status, 503)
                # Earlier ones, by which the server's start was seen, end when its loops get to that.
                server.await_that(lambda: another.fetch("GET", "/connections").body == b"2", "it is not told of two")
            self.assertTrue(server.raw(b"GET /hello HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 "))
        # One that takes Drogon's callback away takes the gate away: no tenant is asked then.
        environment["CONSUMER_TAKES_THE_CALLBACK"] = "1"
        with mayfly_server.Server([hello], executable=executable, environment=environment) as server:
            for headers in ([], [("x-look-up", "yes")]):
                response = server.fetch("GET", "/hello", headers=headers)
                self.assertEqual((response.status, response.json()["error"]), (500, "internal"))
                self.assertIn("mayfly::set_connection_callback()", response.json()["reason"])
            self.assertIn("tenants' requests are refused", server.log())
            self.assertEqual(server.get("/report").status, 200)

    def test_a_plugin_that_was_linked_away_is_noticed(self):
        result = subprocess.run([self.directory / "build/linked-away"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the linker left mayfly::SandboxPlugin out of this executable", result.stderr)
        self.assertIn("Mayfly::Plugin", result.stderr)


class AddSubdirectory(Consumer, unittest.TestCase):
    @classmethod
    def options(cls):
        return [f"-DMAYFLY_SOURCE={HERE.parent.parent}", f"-DCMAKE_PREFIX_PATH={PREFIX_PATH}"]


class FindPackage(Consumer, unittest.TestCase):
    @classmethod
    def options(cls):
        # Moved after its installation, as a distribution's package is.
        run(CMAKE, "--install", BUILD, "--prefix", cls.directory / "installed")
        (cls.directory / "installed").rename(cls.directory / "moved")
        return [f"-DCMAKE_PREFIX_PATH={cls.directory / 'moved'};{PREFIX_PATH}"]

    def test_another_drogon_than_mayflys_is_refused(self):
        other = self.directory / "other-drogon"
        other.mkdir()
        (other / "DrogonConfig.cmake").write_text("add_library(Drogon::Drogon INTERFACE IMPORTED)\n")
        (other / "DrogonConfigVersion.cmake").write_text("set(PACKAGE_VERSION 1.9.99)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n")
        command = [CMAKE, "-S", HERE, "-B", self.directory / "refused", *OPTIONS, f"-DDrogon_DIR={other}"]
        command.append(f"-DCMAKE_PREFIX_PATH={self.directory / 'moved'}")
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        self.assertNotEqual(result.returncode, 0)
        message = " ".join(result.stderr.split())
        self.assertIn("and this project uses Drogon 1.9.99", message)
        self.assertIn("Mayfly was built with Drogon", message)


if __name__ == "__main__":
    unittest.main()
