# SPDX-License-Identifier: MIT OR Apache-2.0
"""Special files instead of each regular file that a configuration names, and files that do not answer.

The others are served and reloaded, operators are answered, and the server ends.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from hanging import HangingFileSystem
from mayfly_server import EXECUTABLE, TENANTS, Server, digest, program_path, replace, run_until_exit, tenant

KEY = "operator"
HELLO = b"Hello World!"
# A second is what a file may take that does not answer. A loaded machine needs longer for the rest. What is held up
# takes as long as the file system, or a lease (45 s), or the patience of other waits in these tests.
SOON_S = 15
# A file that root may not read either, as for a server of another user.
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def content(name):
    return Path(program_path(name)).read_bytes()


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def unreadable(path):
    path.write_bytes(content("hello"))
    path.chmod(0)


def bound(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


# What lies in a file's place, and what is said of it.
KINDS = {
    "fifo": (os.mkfifo, "it is a FIFO: expected a regular file"),
    "socket": (bound, "it is a socket: expected a regular file"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "it is a character device: expected a regular file"),
    "kmsg": (lambda path: path.symlink_to("/proc/kmsg"), "it belongs to the kernel (procfs)"),
    "directory": (Path.mkdir, "it is a directory: expected a regular file"),
    "dangling": (lambda path: path.symlink_to("nothing"), "No such file"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "sparse": (sparse, ""),  # Large files are mapped, and what is in them is no program.
    "unreadable": (unreadable, "Permission denied"),
}


def remove(path):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-files-")))

    def put(self, name, kind):
        path = self.folder / name
        remove(path)
        KINDS[kind][0](path)
        return path

    def install(self, name, program="hello"):
        """A program's file; large ones would be mapped."""
        path = self.folder / name
        remove(path)
        replace(path, content(program))
        return path

    @contextlib.contextmanager
    def soon(self, what):
        start = time.monotonic()
        yield
        self.assertLess(time.monotonic() - start, SOON_S, what)

    @contextlib.contextmanager
    def server(self, *arguments, **more):
        """A server that must end in time."""
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(Server(*arguments, launcher=AS_OTHERS, **more))
            yield server
            with self.soon("SIGTERM"):
                stack.close()

    def reload(self, server):
        """What a look for changes came to, by tenant; and of the file."""
        with self.soon("POST /_mayfly/reload"):
            answer = server.operate("POST", "reload", key=KEY).json()
        return {program["tenant"]: program for program in answer["programs"]}, answer["file"]


class Programs(Files):
    def test_whatever_lies_in_the_place_of_programs_others_start(self):
        tenants = [tenant("good", "/good", "hello")]
        for kind in KINDS:
            path = str(self.put(kind, kind))
            store = {"storage": {"program": path}}
            tenants.append({"name": kind, "path": f"/{kind}", "program": path})
            tenants.append(tenant(f"store-{kind}", f"/store-{kind}", "notes", **store))
        with self.server(tenants, admin={"key_sha256": digest(KEY)}) as server:
            self.assertEqual(server.get("/good").body, HELLO)
            server.await_that(lambda: server.operate("GET", "ready").status == 200, "it is not ready")
            for kind, (_, said) in KINDS.items():
                for name in (kind, f"store-{kind}"):
                    with self.subTest(name):
                        response = server.await_boot(f"/{name}")
                        self.assertEqual(response.status, 503)
                        self.assertIn(said, response.json()["reason"])
                        if kind != "sparse":
                            self.assertIn(str(self.folder / kind), response.json()["reason"])

    def test_whatever_a_program_becomes_others_are_reloaded(self):
        good, bad = self.install("good"), self.install("bad")
        tenants = [{"name": path.name, "path": f"/{path.name}", "program": str(path)} for path in (bad, good)]
        with self.server(tenants, admin={"key_sha256": digest(KEY)}, config={"watch": False}) as server:
            self.assertEqual(server.await_boot("/bad").body, HELLO)
            self.assertEqual(server.await_boot("/good").body, HELLO)
            for number, (kind, (_, said)) in enumerate(KINDS.items()):
                with self.subTest(kind):
                    self.put("bad", kind)
                    self.install("good", "hello" if number % 2 else "echo")
                    programs, _ = self.reload(server)
                    self.assertIn("generation", programs["good"])
                    if kind != "dangling":  # A file that is not there is perhaps about to be replaced.
                        self.assertIn(said, programs["bad"]["reason"])
                    with self.soon("POST /_mayfly/tenants/bad/reload"):
                        answer = server.operate("POST", "tenants/bad/reload", key=KEY)
                    self.assertEqual(answer.status, 422)
                    self.assertIn(said, answer.json()["reason"])
                    if kind != "sparse":
                        self.assertIn(str(self.folder / "bad"), answer.json()["reason"])
                    self.assertEqual(server.get("/bad").body, HELLO, "what ran goes on")
                    self.assertEqual(server.operate("GET", "ready").status, 200)
            self.install("bad", "echo")
            self.assertIn("generation", self.reload(server)[0]["bad"])
            self.put("bad", "fifo")

    def test_a_fifo_holds_up_neither_the_watch_nor_a_signal(self):
        good, bad = self.install("good"), self.install("bad")
        tenants = [{"name": path.name, "path": f"/{path.name}", "program": str(path)} for path in (bad, good)]
        for watch in (True, False):
            self.install("good")
            self.install("bad")
            with self.subTest(watch=watch), self.server(tenants, admin={}, config={"watch": watch}) as server:
                self.assertEqual(server.await_boot("/good").body, HELLO)
                self.put("bad", "fifo")
                server.signal(signal.SIGHUP)
                server.await_log("no new generation; the previous one keeps running tenant=bad .*it is a FIFO")
                self.install("good", "echo")
                if not watch:
                    server.signal(signal.SIGHUP)
                server.await_that(lambda: server.tenant_status("good")["generation"] == 2, "it is not reloaded")

    def test_a_program_on_which_another_process_has_a_lease_is_refused_in_time(self):
        path = self.install("app")
        tenants = [{"name": "app", "path": "/app", "program": str(path)}, tenant("other", "/other", "hello")]
        with self.server(tenants, admin={"key_sha256": digest(KEY)}, config={"watch": False}) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            self.install("app", "echo")
            # The system asks for the lease back by this signal, which would end the test.
            former = signal.signal(signal.SIGIO, signal.SIG_IGN)
            with open(path, "r+b") as file:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                with self.soon("the reload"):
                    answer = server.operate("POST", "tenants/app/reload", key=KEY)
                self.assertIn(f"{path}: another process has had a lease on it", answer.json()["reason"])
            signal.signal(signal.SIGIO, former)
            self.assertIn("generation", self.reload(server)[0]["app"])

    def test_a_program_that_grows_while_it_is_read_is_refused_and_read_when_it_is_complete(self):
        path = self.install("app")
        done = threading.Event()

        def grow():
            with open(path, "ab", buffering=0) as file:
                while not done.is_set() and file.tell() < 1 << 30:
                    file.write(bytes(1 << 16))

        tenants = [{"name": "app", "path": "/app", "program": str(path)}, tenant("other", "/other", "hello")]
        with self.server(tenants, admin={"key_sha256": digest(KEY)}, config={"watch": False}) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            writer = threading.Thread(target=grow)
            writer.start()
            try:
                for _ in range(5):
                    self.reload(server)
                    self.assertEqual(server.get("/other").body, HELLO)
            finally:
                done.set()
                writer.join()
            self.install("app", "echo")
            self.assertIn("generation", self.reload(server)[0]["app"])


class OtherFiles(Files):
    def test_whatever_lies_in_the_place_of_the_tenants_file_programs_are_reloaded(self):
        app = self.install("app")
        tenants = [{"name": "app", "path": "/app", "program": str(app)}]
        admin = {"key_sha256": digest(KEY)}
        with self.server(tenants, admin=admin, tenants_file=True, config={"watch": False}) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            file = server.directory / "tenants.json"
            text = file.read_bytes()
            for number, (kind, (make, said)) in enumerate(KINDS.items()):
                with self.subTest(kind):
                    remove(file)
                    make(file)
                    self.install("app", "hello" if number % 2 else "echo")
                    programs, refused = self.reload(server)
                    self.assertIn("generation", programs["app"])
                    self.assertEqual(refused["error"], "bad-configuration")
                    self.assertIn(said or "it has 1099511627776 bytes: expected at most", refused["reason"])
                    self.assertIn(str(file), refused["reason"])
            remove(file)
            file.write_bytes(text)

    def test_a_server_does_not_start_from_a_tenants_file_that_is_none(self):
        for kind, (make, said) in KINDS.items():
            if kind == "unreadable":
                continue  # It is root's here.
            with self.subTest(kind), self.soon("the refusal"):
                file = self.put("tenants.json", kind)
                plugin = {"name": "mayfly::SandboxPlugin", "config": {"tenants_file": str(file)}}
                status, output = run_until_exit({"plugins": [plugin]})
                self.assertNotEqual(status, 0)
                self.assertIn(f"{file}: cannot be read: {said}" if kind in ("fifo", "kmsg") else str(file), output)

    def test_whatever_lies_in_the_place_of_shared_memory_mounts_and_watched_files_others_are_served(self):
        tenants = [tenant("good", "/good", "hello")]
        for kind in KINDS:
            path = str(self.put(kind, kind))
            shared = {"shared_memory": {"kib": 4, "file": path}}
            mounts = {"mounts": [{"host": path, "at": "/m"}]}
            watched = {"mounts": [{"host": str(self.folder), "at": "/m"}], "watch": [f"/m/{kind}"]}
            tenants.append(tenant(f"shared-{kind}", f"/shared-{kind}", "counter", **shared))
            tenants.append(tenant(f"mount-{kind}", f"/mount-{kind}", "hello", **mounts))
            tenants.append(tenant(f"watch-{kind}", f"/watch-{kind}", "hello", **watched))
        with self.server(tenants, admin={"key_sha256": digest(KEY)}) as server:
            self.assertEqual(server.get("/good").body, HELLO)
            for kind, (_, said) in KINDS.items():
                with self.subTest(kind):
                    self.assertEqual(server.await_boot(f"/watch-{kind}").body, HELLO)
                    shared = server.await_boot(f"/shared-{kind}")
                    if kind != "sparse":  # A sparse file is valid.
                        self.assertEqual(shared.status, 503)
                        links = kind in ("zero", "kmsg", "dangling", "loop")
                        said = "it is a symbolic link" if links else said
                        self.assertIn(f"no shared memory: {self.folder / kind}: {said}", shared.json()["reason"])
                    mount = server.await_boot(f"/mount-{kind}")
                    self.assertEqual(mount.status, 200 if kind == "directory" else 503)
                    if mount.status == 503:
                        self.assertIn(str(self.folder / kind), mount.json()["reason"])
            self.reload(server)

    def test_what_lies_in_the_place_of_uploads_is_not_written_to_and_not_run(self):
        uploads = self.folder / "uploads"
        uploads.mkdir()
        admin = {"key_sha256": digest(KEY), "uploads": str(uploads)}
        victim = self.folder / "victim"
        victim.write_text("untouched")
        with self.server([tenant("app", "/app", "hello")], admin=admin) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            for make in (os.mkfifo, lambda path: path.symlink_to(victim)):
                make(uploads / "app.elf.new")
                with self.soon("the upload"):
                    answer = server.operate("PUT", "tenants/app/program", content("echo"), key=KEY)
                self.assertEqual(answer.status, 200)
                self.assertEqual((uploads / "app.elf").read_bytes(), content("echo"))
            self.assertEqual(victim.read_text(), "untouched")
        remove(uploads / "app.elf")
        os.mkfifo(uploads / "app.elf")
        with self.server([tenant("app", "/app", "hello"), tenant("other", "/other", "hello")], admin=admin) as server:
            reason = server.await_boot("/app").json()["reason"]
            self.assertIn(f"{uploads / 'app.elf'}: it is a FIFO", reason)
            self.assertEqual(server.get("/other").body, HELLO)

    def test_what_lies_in_the_place_of_snapshots_is_not_used(self):
        kept = self.folder / "kept"
        config = {"snapshots": str(kept)}
        tenants = [tenant("app", "/app", "hello"), tenant("other", "/other", "hello")]
        with self.server(tenants, config=config) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            server.await_log("snapshot was saved tenant=app")
        (file,) = kept.glob("app-*.snapshot")
        for kind in ("fifo", "socket", "zero", "kmsg", "directory", "loop"):
            with self.subTest(kind):
                remove(file)
                KINDS[kind][0](file)
                with self.server(tenants, config=config) as server:
                    self.assertEqual(server.await_boot("/app").body, HELLO)
                    self.assertEqual(server.get("/other").body, HELLO)
                    server.await_log(f"snapshot is not used.* tenant=app path={file} reason=.*expected a regular")

    def test_an_interpreter_that_is_no_file_is_refused(self):
        libraries = self.folder / "lib64"
        libraries.mkdir()
        os.mkfifo(libraries / "ld-linux-x86-64.so.2")
        lighttpd = {"name": "app", "path": "/app", "program": str(TENANTS / "lighttpd/bin/lighttpd")}
        lighttpd["mounts"] = [{"host": str(libraries), "at": "/lib64"}]
        with self.server([lighttpd, tenant("other", "/other", "hello")]) as server:
            self.assertIn("/lib64/ld-linux-x86-64.so.2", server.await_boot("/app").json()["reason"])
            self.assertEqual(server.get("/other").body, HELLO)

    def test_a_server_does_not_start_from_a_configuration_that_is_no_file(self):
        for kind in ("fifo", "socket", "zero", "directory", "dangling", "loop"):
            with self.subTest(kind), self.soon("the refusal"):
                path = self.put("config.json", kind)
                started = subprocess.run([EXECUTABLE, path], capture_output=True, timeout=SOON_S, text=True)
                self.assertNotEqual(started.returncode, 0)
                self.assertIn(f"mayfly-server: error: {path}: ", started.stderr)

    def test_what_is_no_device_is_not_taken_for_kvm(self):
        path = self.put("kvm", "fifo")
        tenants = [tenant("app", "/app", "hello", engine="kvm")]
        with self.server(tenants, environment={"MAYFLY_KVM_PATH": str(path)}) as server:
            reason = server.get("/app").json()["reason"]
            self.assertIn(f"{path} as KVM: it is a FIFO: expected a character device", reason)


class FarFiles(Files):
    """Files on a file system that does not answer."""

    def setUp(self):
        super().setUp()
        self.far = self.enterContext(HangingFileSystem({"app": content("hello"), "page": b"page"}))
        self.app = {"name": "app", "path": "/app", "program": str(self.far.directory / "app")}
        self.good = {"name": "good", "path": "/good", "program": str(self.install("good"))}
        self.admin = {"key_sha256": digest(KEY)}

    def assert_reloads(self, server):
        """The other tenant, by an operator."""
        before = server.tenant_status("good", KEY)["generation"]
        self.install("good", "echo" if before % 2 else "hello")
        programs, _ = self.reload(server)
        # Where the watch has looked before this, it has reloaded it.
        self.assertIn(programs.get("good", {"generation": before + 1}).get("generation"), [before + 1])
        self.assertEqual(server.tenant_status("good", KEY)["generation"], before + 1)
        return programs

    def test_a_program_that_does_not_answer_at_the_start_holds_up_nobody(self):
        self.far.hold()
        many = [{**self.app, "name": f"app{number}", "path": f"/app{number}"} for number in range(12)]
        with self.server([*many, self.good], admin=self.admin) as server:
            with self.soon("the first answer"):
                self.assertEqual(server.await_boot("/good").body, HELLO)
            server.await_that(lambda: server.operate("GET", "ready").status == 200, "it is not ready")
            for number in (0, 11):
                response = server.get(f"/app{number}")
                self.assertEqual(response.status, 503)
                self.assertRegex(response.json()["reason"], f"{self.app['program']} has not answered for [0-9]+ s")
                status = server.tenant_status(f"app{number}", KEY)
                self.assertEqual(status["state"], "failed")
                self.assertIn("has not answered", status["waits_for"])
            metrics = server.operate("GET", "metrics", key=KEY).body.decode()
            self.assertIn('mayfly_tenant_waits_for_files{tenant="app0"} 1', metrics)
            self.assert_reloads(server)
            self.far.answer()
            server.await_that(lambda: server.get("/app3").body == HELLO, "it does not come back")
            self.far.hold()
            self.assert_reloads(server)

    def test_a_program_that_stops_to_answer_holds_up_no_reload(self):
        for watch in (True, False):
            config = {"watch": watch}
            server = self.server([self.app, self.good], admin=self.admin, config=config)
            with self.subTest(watch=watch), server as server:
                self.assertEqual(server.await_boot("/app").body, HELLO)
                self.assertEqual(server.await_boot("/good").body, HELLO)
                self.far.hold()
                programs = self.assert_reloads(server)
                self.assertEqual(programs["app"]["error"], "files-do-not-answer")
                self.assertIn(f"{self.app['program']} has not answered", programs["app"]["reason"])
                with self.soon("POST /_mayfly/tenants/app/reload"):
                    self.assertEqual(server.operate("POST", "tenants/app/reload", key=KEY).status, 503)
                generation = server.tenant_status("good", KEY)["generation"]
                self.install("good", "echo" if generation % 2 else "hello")
                if not watch:
                    server.signal(signal.SIGHUP)
                with self.soon("the watch, or SIGHUP"):
                    server.await_that(
                        lambda: server.tenant_status("good", KEY)["generation"] == generation + 1, "it is not reloaded"
                    )
                self.assertEqual(server.get("/app").body, HELLO, "what ran goes on")
                self.assertEqual(server.operate("GET", "ready").status, 200)
                self.assertLess(len(os.listdir(f"/proc/{server.pid}/task")), 80)
                self.far.write("app", content("echo"))
                self.far.answer()
                # What waited may have read the former one; a look for changes finds this one.
                server.await_that(
                    lambda: self.reload(server) and server.get("/app").body != HELLO, "it does not come back"
                )
                self.far.write("app", content("hello"))
                self.far.hold()
            self.far.answer()

    def test_a_new_configuration_is_in_force_though_a_changed_program_does_not_answer(self):
        with self.server([self.app, self.good], admin=self.admin, tenants_file=True) as server:
            self.assertEqual(server.await_boot("/app").body, HELLO)
            self.far.hold()
            changed = {**self.app, "env": {"NEW": "1"}}
            other = {**self.app, "name": "other", "path": "/o"}
            server.write_tenants([changed, self.good, tenant("new", "/new", "hello"), other])
            with self.soon("the new tenant"):
                server.await_that(lambda: server.get("/new").body == HELLO, "the new tenant does not come")
            self.assertEqual(server.get("/app").body, HELLO)
            self.assert_reloads(server)
            self.far.answer()
            server.await_that(lambda: server.get("/o").body == HELLO, "it does not come back")
            self.far.hold()

    def test_a_tenants_file_that_does_not_answer_holds_up_no_program(self):
        admin = {"listen": "127.0.0.1:0", **self.admin}
        self.far.write("tenants.json", json.dumps({"admin": admin, "tenants": [self.good]}).encode())
        plugin = {"tenants_file": str(self.far.directory / "tenants.json")}
        app = {"number_of_threads": 2, "document_root": "public"}
        file = {"app": app, "plugins": [{"name": "mayfly::SandboxPlugin", "config": plugin}]}
        with self.server(file=file, admin=self.admin) as server:
            self.assertEqual(server.await_boot("/good").body, HELLO)
            self.far.hold()
            for _ in range(2):
                self.assert_reloads(server)
                _, refused = self.reload(server)
                self.assertEqual(refused["error"], "bad-configuration")
                self.assertIn("tenants.json has not answered", refused["reason"])
            self.install("good", "hello" if server.tenant_status("good", KEY)["generation"] % 2 == 0 else "echo")
            generation = server.tenant_status("good", KEY)["generation"]
            server.signal(signal.SIGHUP)
            server.await_that(lambda: server.tenant_status("good", KEY)["generation"] > generation, "not reloaded")

    def test_snapshots_that_do_not_answer_are_not_used(self):
        self.far.hold()
        config = {"snapshots": str(self.far.directory / "kept")}
        with self.server([self.good], admin=self.admin, config=config) as server:
            self.assertEqual(server.await_boot("/good").body, HELLO)
            server.await_log("snapshot is not used: the program is booted instead tenant=good .*has not answered")
            self.assert_reloads(server)

    def test_a_mount_that_does_not_answer_holds_up_no_reload(self):
        mounts = [{"host": str(self.far.directory), "at": "/far"}]
        mounted = tenant("mounted", "/mounted", "hello", mounts=mounts, watch=["/far"])
        with self.server([mounted, self.good], admin=self.admin) as server:
            self.assertEqual(server.await_boot("/mounted").body, HELLO)
            self.far.hold()
            programs = self.assert_reloads(server)
            self.assertIn("has not answered", programs["mounted"]["reason"])
            self.assertEqual(server.get("/mounted").body, HELLO)

    def test_requests_that_wait_for_a_file_do_not_keep_the_server_from_its_end(self):
        libraries = [{"host": path} for path in ("/lib", "/lib64", "/usr")]
        files = {"host": str(TENANTS / "lighttpd"), "at": "/app/lighttpd"}
        environment = {"LD_LIBRARY_PATH": "/app/lighttpd/lib", "ROOT": "/far", "PORT": "8000"}
        lighttpd = {
            "name": "lighttpd",
            "hosts": ["files"],
            "program": str(TENANTS / "lighttpd/bin/lighttpd"),
            "args": ["-D", "-f", "/app/lighttpd/lighttpd.conf", "-m", "/app/lighttpd/lib/modules"],
            "mounts": [*libraries, files, {"host": str(self.far.directory), "at": "/far"}],
            "env": environment,
            "serve": "connections",
            "limits": {"boot_ms": 60_000, "wall_ms": 60_000},
        }
        with Server([lighttpd, self.good], admin=self.admin) as server, contextlib.ExitStack() as connections:
            server.await_that(lambda: server.get("/page", host="files").body == b"page", "it does not boot")
            self.far.hold()
            for _ in range(4):
                connection = connections.enter_context(server.socket())
                connection.sendall(b"GET /page HTTP/1.1\r\nhost: files\r\n\r\n")
            server.await_that(lambda: self.far.is_asked(), "no request arrives")
            self.assertEqual(server.get("/good").body, HELLO)
            self.assert_reloads(server)
            server.signal(signal.SIGTERM)
            start = time.monotonic()
            server._process.wait(30)
            # Five seconds for what is in work, and then some for threads.
            self.assertLess(time.monotonic() - start, 15)
            self.assertIn("threads are abandoned", server.log())


if __name__ == "__main__":
    unittest.main()
