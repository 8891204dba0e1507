# SPDX-License-Identifier: MIT OR Apache-2.0
"""Low limits of the process: the server refuses to start and says what to do, or it serves. There is nothing in
between.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from mayfly_server import EXECUTABLE, REPOSITORY, TIMEOUT_S, Server, digest, free_port, program_path, tenant

CLI = REPOSITORY / "build/bin/mayfly"
# A user without processes, also where such tests of another checkout run. Limits on threads do not apply to root. The
# repository may be readable by root only.
USER = 1_000_000 + os.getpid()
NOBODY = ("setpriv", f"--reuid={USER}", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
NOBODY = NOBODY if os.geteuid() == 0 else ()


def limited(**limits):
    """What starts a program with these limits, soft and hard."""
    return ("prlimit", *(f"--{name}={value}:{value}" for name, value in limits.items()))


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


class Attempt:
    """A command that may refuse to start: `status` and `output` if it does, and None and what it says if it serves
    `port`.
    """

    def __init__(self, command, port, path, environment=None):
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ, **(environment or {}))
            )
            try:
                self.answer = self._serve(process, port, path)
                if process.poll() is None:
                    before = cpu_seconds(process.pid)
                    time.sleep(0.3)
                    self.idle_cpu = cpu_seconds(process.pid) - before
                    process.terminate()
                    self.end = process.wait(TIMEOUT_S)
                    self.status = None
                else:
                    self.status = process.returncode
            finally:
                process.kill()
                process.wait()
                log.seek(0)
                self.output = log.read().decode(errors="backslashreplace")

    @staticmethod
    def _serve(process, port, path):
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None:
            try:
                return get(port, path)
            except ConnectionResetError:
                process.wait(TIMEOUT_S)  # It had its listener before it refused.
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "neither served nor refused"
                time.sleep(0.02)
        return None


def await_end_of_nobodys_processes():
    """Waits until no process of the user that tests start servers as is left."""

    def is_nobodys(pid):
        try:
            return f"\nUid:\t{USER}\t" in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    end = time.monotonic() + TIMEOUT_S
    while NOBODY and time.monotonic() < end and any(is_nobodys(pid) for pid in os.listdir("/proc") if pid.isdigit()):
        time.sleep(0.01)


class Limits(unittest.TestCase):
    def config(self, port, tenants, threads=2):
        directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        directory.chmod(0o777)  # Drogon makes folders for uploads, as another user, too.
        path = directory / "config.json"
        path.write_text(
            json.dumps(
                {
                    "app": {"number_of_threads": threads, "document_root": "public", "upload_path": str(directory)},
                    "listeners": [{"address": "127.0.0.1", "port": port}],
                    "plugins": [
                        {
                            "name": "mayfly::SandboxPlugin",
                            "config": {"tenants": tenants, "admin": {"listen": "127.0.0.1:0"}},
                        }
                    ],
                }
            )
        )
        return path

    def sweep(self, values, attempt, says):
        """Each value is refused with `says`, or serves; low ones are refused, and high ones serve."""
        refused, served = [], []
        for value in values:
            found = attempt(value)
            if found.status is None:
                served.append(value)
                self.assertEqual((found.answer, found.end), (200, 0), (value, found.output))
                # A loop that spins has all of it.
                self.assertLess(found.idle_cpu, 0.15, (value, found.output))
            else:
                refused.append(value)
                self.assertIn(found.status, (1, 3), (value, found.output))
                self.assertIn("error: " if found.status == 1 else "mayfly: ", found.output, value)
                for word in says:
                    self.assertIn(word, found.output, value)
                self.assertNotIn("panicked", found.output, value)
        self.assertTrue(refused and served and max(refused) < min(served), (refused, served))

    def test_the_server_has_enough_descriptors_or_says_how_many_it_needs(self):
        def attempt(value):
            port = free_port()
            config = self.config(port, [tenant("hello", "/hello")])
            return Attempt([*limited(nofile=value), EXECUTABLE, config], port, "/hello")

        values = (12, 16, 20, 24, 28, 30, 32, 36, 40, 48, 56, 64, *range(66, 82, 3), 100, 200)
        self.sweep(values, attempt, ["limit on descriptors", "are needed", "ulimit -n", "LimitNOFILE"])

    def test_the_command_has_enough_descriptors_or_says_how_many_it_needs(self):
        def attempt(value):
            port = free_port()
            listen = ("--listen", f"127.0.0.1:{port}", "--threads", "2")
            return Attempt([*limited(nofile=value), CLI, "run", *listen, program_path("hello")], port, "/")

        values = (12, 16, 20, 24, 30, 36, 40, 48, 56, 64, *range(66, 82, 3), 100, 200)
        self.sweep(values, attempt, ["limit on descriptors", "are needed", "ulimit -n", "LimitNOFILE"])

    def test_the_server_has_enough_threads_or_says_so(self):
        def attempt(value):
            # The processes of the last server's programs end with it, but not before it, and count until then.
            await_end_of_nobodys_processes()
            port = free_port()
            config = self.config(port, [tenant("hello", "/hello")])
            return Attempt([*NOBODY, *limited(nproc=value), EXECUTABLE, config], port, "/")

        above = 200 if NOBODY else 1 << 20
        self.sweep((*range(1, 24), above), attempt, ["ulimit -u", "TasksMax"])

    def test_threads_that_are_refused_later_are_errors_and_nothing_spins(self):
        environment = {"MAYFLY_ENGINE": "kvm"}
        if NOBODY:
            device = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-"))) / "kvm"
            os.mknod(device, stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
            device.chmod(0o666)
            device.parent.chmod(0o755)
            environment["MAYFLY_KVM_PATH"] = str(device)
        hellos = [tenant("one", "/one", "hello"), tenant("two", "/two", "hello", boot="first_call")]
        with Server(
            hellos, launcher=NOBODY, environment=environment, admin={"key_sha256": digest("k")}, open_directory=True
        ) as server:
            server.await_workers("one", 2, "k")

            def limit(threads):
                pid = str(server.pid)
                subprocess.run([*NOBODY, "prlimit", "--pid", pid, f"--nproc={threads}:"], check=True)

            limit(1)
            self.assertEqual(server.get("/one").status, 200)
            server.get("/two")
            response = server.await_boot("/two")
            self.assertEqual(response.status, 503)
            self.assertIn("TasksMax", response.json()["reason"])
            for _ in range(3):
                self.assertEqual(server.operate("POST", "tenants/one/reload", key="k").status, 422)
            before = cpu_seconds(server.pid)
            time.sleep(0.5)
            self.assertLess(cpu_seconds(server.pid) - before, 0.2)
            limit(4096)
            self.assertEqual(server.operate("POST", "tenants/one/reload", key="k").status, 200)
            self.assertEqual(server.get("/one").status, 200)
            self.assertNotIn("panicked", server.log())

    def test_little_address_space_is_refused(self):
        for size in (200 << 20, 500 << 20):
            port = free_port()
            config = self.config(port, [tenant("hello", "/hello")])
            found = Attempt([*limited(**{"as": size}), EXECUTABLE, config], port, "/hello")
            self.assertEqual(found.status, 1, found.output)
            self.assertIn("limit on address space", found.output)
            self.assertIn("LimitAS", found.output)

    def test_a_soft_limit_on_descriptors_is_raised(self):
        launcher = ("prlimit", "--nofile=64:4096")
        with Server([tenant("hello", "/hello")], launcher=launcher, admin={}) as server:
            self.assertEqual(server.get("/hello").status, 200)
            self.assertIn("Max open files            4096", Path(f"/proc/{server.pid}/limits").read_text())

    def test_a_file_that_may_not_grow_is_an_error_and_not_the_end(self):
        # No image fits.
        with Server([tenant("hello", "/hello")], launcher=limited(fsize=200_000)) as server:
            self.assertEqual(server.get("/").status, 200)
            response = server.await_boot("/hello")
            self.assertEqual(response.status, 503)
            self.assertIn("File too large", response.json()["reason"])
            server.await_log("LimitFSIZE")

    def test_connections_that_take_all_descriptors_neither_spin_nor_stay_a_problem(self):
        with Server([tenant("hello", "/hello")], launcher=limited(nofile=120), admin={}) as server:
            server.await_workers("hello", 1)
            with contextlib.ExitStack() as held:
                for _ in range(300):
                    held.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S))
                time.sleep(0.3)
                before, lines = cpu_seconds(server.pid), server.log().count("\n")
                time.sleep(1)
                self.assertLess(cpu_seconds(server.pid) - before, 0.3)
                self.assertLess(server.log().count("\n") - lines, 10)
            server.await_log("no descriptors are left")

            def is_served():
                with contextlib.suppress(ConnectionError, http.client.HTTPException):
                    return server.get("/hello").status == 200
                return False

            server.await_that(is_served, "it does not recover")

    def test_workers_leave_descriptors_for_connections(self):
        hellos = [tenant(f"hello{number}", f"/{number}", "hello") for number in range(60)]
        config = {"max_workers": 1000, "boot_at_start": 0}
        with Server(hellos, threads=2, config=config, launcher=limited(nofile=128), admin={}) as server:
            for _ in range(2):
                # Each one is answered, whether there is a worker for it or not.
                found = {server.get(f"/{number}").status for number in range(len(hellos))}
                self.assertEqual(found, {200, 503})
            self.assertEqual(server.get("/").status, 200)

    def test_closed_standard_streams_are_not_written_to(self):
        launcher = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        with Server([tenant("hello", "/hello"), tenant("faults", "/faults")], launcher=launcher) as server:
            for _ in range(5):
                self.assertEqual(server.get("/faults/exit").status, 502)
            for stream in range(3):
                self.assertEqual(os.readlink(f"/proc/{server.pid}/fd/{stream}"), "/dev/null")
            self.assertEqual(server.get("/hello").status, 200)

    def test_a_full_disk_behind_the_log_holds_nothing_up(self):
        launcher = ("sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
        with Server([tenant("hello", "/hello"), tenant("faults", "/faults")], launcher=launcher) as server:
            for _ in range(5):
                self.assertEqual(server.get("/faults/exit").status, 502)
            self.assertEqual(server.get("/hello").status, 200)

    def test_a_log_that_is_not_read_holds_nothing_up(self):
        reader, writer = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, reader)
            launcher = ("sh", "-c", f'exec "$@" >&{writer} 2>&1', "sh")
            with Server(
                [tenant("hello", "/hello"), tenant("faults", "/faults")], launcher=launcher, pass_fds=(writer,)
            ) as server:
                os.close(writer)
                os.set_blocking(reader, False)
                with server.connect() as connection:
                    for _ in range(1000):
                        self.assertEqual(connection.fetch("GET", "/faults/exit").status, 502)
                    self.assertEqual(connection.fetch("GET", "/hello").status, 200)
                server.signal(signal.SIGTERM)
                server.await_end()


if __name__ == "__main__":
    unittest.main()
