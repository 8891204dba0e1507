# SPDX-License-Identifier: MIT OR Apache-2.0
"""The container of scripts/container is what it says: what runs in it has no KVM and no privilege, and leaves nothing.

Needs root and runc.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SCRIPT = REPOSITORY / "scripts/container"
PYTHON = "/usr/bin/python3"
# A container starts in less than a second; on a loaded machine it takes longer.
TIMEOUT_S = 120

# Prints what a process in the container sees.
LOOK = r"""
import ctypes, errno, json, os, socket, stat
libc = ctypes.CDLL(None, use_errno=True)

def error(call):
    try:
        call()
    except OSError as found:
        return errno.errorcode[found.errno]

def system_call(number, *arguments):
    return None if libc.syscall(number, *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]

def loopback():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass

def first(*paths):
    for path in paths:
        if os.path.exists(path):
            with open(path) as file:
                return file.read().strip()

with open("/proc/self/status") as status, open("/proc/self/mountinfo") as mounts:
    print(json.dumps({
        "status": dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line),
        "writable": sorted(mount[4] for mount in map(str.split, mounts)
                           if os.path.isdir(mount[4]) and os.access(mount[4], os.W_OK)),
        "devices": sorted(name for name in os.listdir("/dev") if stat.S_ISCHR(os.lstat("/dev/" + name).st_mode)),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "loopback": error(loopback),
        "kvm": error(lambda: open("/dev/kvm", "rb")),
        "calls": {
            "bpf": system_call(321, 0, 0, 0),
            "pidfd_getfd": system_call(438, -1, 0, 0),
            "clone3": system_call(435, 0, 0),
            "unknown": system_call(1000),
        },
        "memory": first("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        "pids": first("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
        "directory": os.getcwd(),
        "variables": sorted(os.environ),
    }))
"""


def start(*arguments, **more):
    return subprocess.Popen(
        [SCRIPT, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def run(*arguments, **more):
    """The status, the output and the errors of a run."""
    process = start(*arguments, **more)
    output, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output, errors


def control_groups(pid):
    """The control groups of the container of the script with this process ID."""
    return list(Path("/sys/fs/cgroup").glob(f"**/mayfly-container-{pid}"))


def processes(mark):
    """The processes that have `mark` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            pass  # It has ended.
    return found


class Look:
    """What a process in a container sees, whichever the profile is."""

    @classmethod
    def setUpClass(cls):
        environment = dict(os.environ, MAYFLY_PASSED="1", SECRET="1")
        status, output, cls.errors = run("--profile", cls.profile, "--", PYTHON, "-c", LOOK, env=environment)
        assert status == 0, cls.errors
        cls.seen = json.loads(output)

    def status(self, name):
        return self.seen["status"][name].split("\t")

    def test_a_seccomp_filter_is_above_it(self):
        self.assertEqual(self.status("Seccomp"), ["2"])
        self.assertEqual(self.status("Seccomp_filters"), ["1"])

    def test_the_filter_is_the_engines(self):
        self.assertEqual(self.seen["calls"], self.calls)

    def test_it_has_no_privilege_and_cannot_gain_one(self):
        for name in ("Uid", "Gid"):
            self.assertEqual(self.status(name), ["65534"] * 4, name)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(self.status(name)[0], 16), 0, name)
        self.assertEqual(self.status("NoNewPrivs"), ["1"])

    def test_it_has_the_default_devices_and_no_kvm(self):
        self.assertEqual(self.seen["kvm"], "ENOENT")
        self.assertEqual(self.seen["devices"], ["full", "null", "random", "tty", "urandom", "zero"])

    def test_it_can_write_to_temporary_folders_only(self):
        self.assertEqual(self.seen["writable"], ["/dev/mqueue", "/dev/shm", "/tmp"])

    def test_it_sees_no_other_process(self):
        self.assertEqual(self.seen["processes"], 1)

    def test_its_network_is_a_loopback_interface(self):
        self.assertEqual(self.seen["interfaces"], ["lo"])
        self.assertIsNone(self.seen["loopback"])

    def test_memory_and_processes_are_limited_or_it_says_that_they_are_not(self):
        if "no limits of memory and processes" in self.errors:
            self.skipTest("runc cannot use control groups here")
        self.assertEqual(int(self.seen["memory"]), 4 << 30)
        self.assertEqual(int(self.seen["pids"]), 2048)

    def test_it_runs_in_the_repository_with_few_variables(self):
        self.assertEqual(self.seen["directory"], str(REPOSITORY))
        self.assertIn("MAYFLY_PASSED", self.seen["variables"])
        self.assertNotIn("SECRET", self.seen["variables"])


class Docker(Look, unittest.TestCase):
    profile = "docker"
    # clone3 is refused so that C libraries take clone, whose flags the filter can see. runc adds the rule that calls
    # newer than all of the profile are unknown.
    calls = {"bpf": "EPERM", "pidfd_getfd": "EPERM", "clone3": "ENOSYS", "unknown": "ENOSYS"}


class Podman(Look, unittest.TestCase):
    profile = "podman"
    # pidfd_getfd and clone3 reach the kernel, which refuses these arguments.
    calls = {"bpf": "EPERM", "pidfd_getfd": "EBADF", "clone3": "EINVAL", "unknown": "ENOSYS"}


class Run(unittest.TestCase):
    """How the script ends, and what it leaves."""

    def setUp(self):
        self.folders = self.temporary_folders()

    def tearDown(self):
        self.assertEqual(self.temporary_folders(), self.folders)

    @staticmethod
    def temporary_folders():
        names = os.listdir("/tmp") + os.listdir("/run")
        return [name for name in names if "mayfly-container" in name]

    def begin(self, command):
        """A container whose command has printed a line."""
        process = start("--", "sh", "-c", command)
        self.addCleanup(process.communicate, timeout=TIMEOUT_S)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "begun\n")
        return process

    def await_begin(self, mark):
        """A child has its command's name only when it has called `execve`, which the shell does not wait for."""
        deadline = time.monotonic() + TIMEOUT_S
        while not processes(mark):
            self.assertLess(time.monotonic(), deadline, f"no process of {mark!r}")
            time.sleep(0.01)

    def await_end(self, mark):
        deadline = time.monotonic() + TIMEOUT_S
        while processes(mark):
            self.assertLess(time.monotonic(), deadline, f"these live on: {processes(mark)}")
            time.sleep(0.1)

    def test_status_and_output_are_the_commands(self):
        process = start("--", "sh", "-c", "echo out; echo err >&2; exit 7")
        output, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual((process.returncode, output), (7, "out\n"), errors)
        self.assertRegex(errors, "(?m)^err$")
        self.assertEqual(control_groups(process.pid), [])

    def test_a_command_that_does_not_exist_is_named(self):
        status, _, errors = run("--", "/nonexistent")
        self.assertEqual(status, 127)
        self.assertIn("/nonexistent", errors)

    def test_a_writable_folder_keeps_what_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            status, _, errors = run("--writable", folder, "--", "sh", "-c", f"echo text > {folder}/file")
            self.assertEqual(status, 0, errors)
            file = Path(folder, "file")
            self.assertEqual((file.read_text(), file.stat().st_uid), ("text\n", 65534))

    def test_a_signal_reaches_the_command_and_nothing_is_left(self):
        mark = f"sleep 7{os.getpid()}"
        process = self.begin(f"trap 'echo ended; kill %1; exit' TERM; {mark} & echo begun; wait")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.stdout.read(), "ended\n")
        self.assertEqual(process.wait(TIMEOUT_S), 128 + signal.SIGTERM)
        self.await_end(mark.replace(" ", "\0"))
        self.assertEqual(control_groups(process.pid), [])

    def test_a_script_that_is_killed_takes_its_container_along(self):
        mark = f"sleep 8{os.getpid()}"
        process = self.begin(f"{mark} & echo begun; wait")
        self.await_begin(mark.replace(" ", "\0"))
        process.kill()
        process.wait(TIMEOUT_S)
        self.await_end(mark.replace(" ", "\0"))
        # The next run removes its control groups.
        self.assertEqual(run("--", "true")[0], 0)
        self.assertEqual(control_groups(process.pid), [])

    def test_without_a_command_it_prints_its_usage(self):
        status, _, errors = run()
        self.assertEqual(status, 125)
        self.assertIn("usage: container", errors)

    def test_without_runc_it_says_what_to_do(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("bash", "dirname", "id", "realpath"):
                os.symlink(f"/usr/bin/{name}", f"{folder}/{name}")
            status, _, errors = run("--", "true", env=dict(os.environ, PATH=folder))
        self.assertEqual(status, 125)
        self.assertRegex(errors, "runc is missing.*scripts/setup")

    def test_without_root_it_says_so(self):
        user = {"user": 65534, "group": 65534, "extra_groups": []}
        if not os.access(REPOSITORY, os.X_OK) or subprocess.run(["test", "-x", SCRIPT], **user).returncode != 0:
            self.skipTest("the repository lies where other users cannot read")
        status, _, errors = run("--", "true", **user)
        self.assertEqual(status, 125)
        self.assertIn("needs root", errors)

    def test_where_runc_cannot_run_it_says_why(self):
        with tempfile.TemporaryDirectory() as folder:
            fake = Path(folder, "runc")
            fake.write_text('#!/bin/sh\n[ "$1" != spec ] || exec /usr/sbin/runc spec\necho it is broken >&2\nexit 1\n')
            fake.chmod(0o755)
            status, _, errors = run("--", "true", env=dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"))
        self.assertEqual(status, 125)
        self.assertRegex(errors, re.compile("runc cannot make a container here: .*it is broken"))


if __name__ == "__main__":
    unittest.main()
