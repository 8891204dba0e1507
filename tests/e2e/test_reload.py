# SPDX-License-Identifier: MIT OR Apache-2.0
"""New programs and new tenants while the server runs, and no request lost over it."""

import contextlib
import os
import signal
import tempfile
import unittest
from pathlib import Path

from load import Load, expect
from mayfly_server import Server, digest, program_path, replace, tenant

KEY = "operator"
HELLO = b"Hello World!"


def content(name):
    return Path(program_path(name)).read_bytes()


class Programs(unittest.TestCase):
    watch = True

    def setUp(self):
        """A tenant whose program is a file of the test."""
        self.program = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-programs-"))) / "app"
        self.install("hello")
        tenants = [{"name": "app", "path": "/app", "program": str(self.program)}, tenant("other", "/other", "hello")]
        config = {"mode_header": True, "watch": self.watch}
        self.server = self.enterContext(Server(tenants, admin={"key_sha256": digest(KEY)}, config=config))

    def install(self, name):
        self.put(content(name))

    def put(self, image):
        replace(self.program, image)

    def generation(self):
        return self.server.tenant_status("app", KEY)["generation"]

    def await_generation(self, number):
        self.server.await_that(lambda: self.generation() == number, f"there is no generation {number}")

    def test_a_program_that_was_replaced_is_served_by_every_thread(self):
        self.assertEqual(self.server.get("/app").body, HELLO)
        self.install("echo")
        self.await_generation(2)
        for _ in range(32):  # Some reach each thread.
            response = self.server.get("/app")
            self.assertEqual((response.header("x-mayfly-generation"), response.json()["path"]), ("2", "/app"))
        self.assertEqual(self.server.get("/other").header("x-mayfly-generation"), "1")

    def test_a_file_that_is_the_same_is_no_news(self):
        self.install("hello")
        os.utime(self.program)
        self.server.signal(signal.SIGHUP)
        self.install("echo")
        self.await_generation(2)
        # This is the echo's, so the file that was the same had none.
        self.assertEqual(self.server.get("/app").json()["path"], "/app")

    def test_a_program_that_does_not_boot_replaces_nothing(self):
        for broken in (b"", b"#!/bin/sh\n", content("hello")[:10_000], content("counter")):  # Which wants shared memory.
            failures = self.server.tenant_status("app", KEY)["reload_failures"]
            self.put(broken)
            self.server.await_that(
                lambda: self.server.tenant_status("app", KEY)["reload_failures"] > failures, "no reload was tried"
            )
            self.assertEqual(self.server.get("/app").body, HELLO)
        self.assertEqual(self.generation(), 1)
        self.server.await_log("no new generation; the previous one keeps running tenant=app")
        self.install("echo")
        self.server.await_that(lambda: self.server.get("/app").body != HELLO, "the good one does not come")



class ProgramsWithoutWatch(Programs):
    """The same by request, so that the test knows of every generation."""

    watch = False

    def put(self, image):
        super().put(image)
        if hasattr(self, "server"):
            self.server.signal(signal.SIGHUP)

    def test_no_request_is_lost_over_many_reloads(self):
        def check(connection):
            response = connection.fetch("GET", "/app")
            # What answers is a whole generation: its number and its body go together.
            is_hello = response.status == 200 and response.body == HELLO
            right = response.status == 200 and is_hello == (int(response.header("x-mayfly-generation")) % 2 == 1)
            return None if right else str(response)

        with Load(self.server, check) as load:
            for generation in range(2, 62):
                replace(self.program, content("echo" if generation % 2 == 0 else "hello"))
                answer = self.server.operate("POST", "reload", key=KEY)
                (program,) = answer.json()["programs"]
                self.assertEqual((answer.status, program["tenant"], program["generation"]), (200, "app", generation))
        status = self.server.tenant_status("app", KEY)
        self.assertEqual((status["errors"], status["requests"], status["reloads"]), ({}, load.count, 60))


class TenantsFile(unittest.TestCase):
    def setUp(self):
        self.hello, self.echo = tenant("hello", "/hello"), tenant("echo", "/echo")
        self.server = self.enterContext(Server([self.hello], tenants_file=True, admin={"key_sha256": digest(KEY)}))

    def await_status(self, path, status, host=None):
        self.server.await_that(lambda: self.server.get(path, host).status == status, f"{path} is not {status}")

    def test_tenants_come_and_go_and_move(self):
        with Load(self.server, expect("/hello", 200, HELLO)), Load(self.server, expect("/", 200)):
            self.assertEqual(self.server.get("/echo").status, 404)
            self.server.write_tenants([self.hello, self.echo])
            self.await_status("/echo", 200)
            self.server.write_tenants([self.hello, {**self.echo, "path": "/other", "hosts": ["moved.example"]}])
            self.await_status("/other", 200, "moved.example")
            self.assertEqual(self.server.get("/other").status, 404)
            self.assertEqual(self.server.get("/echo").status, 404)
            self.server.write_tenants([self.hello])
            self.await_status("/other", 404, "moved.example")
        # Nothing of this was news for the tenant that stayed.
        status = self.server.tenant_status("hello", KEY)
        self.assertEqual((status["generation"], status["reloads"], status["errors"]), (1, 0, {}))

    def test_a_mended_file_is_logged_whether_it_is_another_or_the_former_one(self):
        for mended, tenants in (("it is what is in force", [self.hello]), ("it is applied", [self.hello, self.echo])):
            before = len(self.server.log())
            self.server.write_tenants([{**self.hello, "paht": "/x"}])
            self.server.await_that(lambda at=before: "stays in force" in self.server.log()[at:], "it is not refused")
            self.server.write_tenants(tenants)
            self.server.await_log(f"the tenants file is valid again: {mended}")
        self.await_status("/echo", 200)

    def test_a_tenant_may_take_a_path_of_drogons_and_give_it_back(self):
        self.server.write_tenants([self.hello, tenant("root", "/", "hello")])
        self.server.await_that(lambda: self.server.get("/").body == HELLO, "the root is not a tenant's")
        self.server.write_tenants([self.hello])
        self.server.await_that(lambda: self.server.get("/").body != HELLO, "the root is still a tenant's")

    def test_the_first_default_tenant_may_come_with_a_reload_and_go(self):
        self.assertEqual(self.server.get("/nowhere/at/all").status, 404)
        for _ in range(2):
            self.server.write_tenants([self.hello, tenant("rest", None, "echo", default=True)])
            self.await_status("/nowhere/at/all", 200)
            self.assertEqual(self.server.get("/nowhere/at/all?x").echoed()["path"], "/nowhere/at/all")
            # The application's own stay its own.
            self.assertEqual(self.server.get("/hello").body, HELLO)
            self.assertEqual(self.server.get("/").status, 200)
            self.server.write_tenants([self.hello])
            self.await_status("/nowhere/at/all", 404)

    def test_a_bad_file_changes_nothing(self):
        path = self.server.directory / "tenants.json"
        replace(path, b'{\n  "tenants": [],\n  "tennants": []\n}')
        self.server.await_log(r"tenants\.json:3:3: tennants")
        self.assertEqual(self.server.get("/hello").status, 200)
        self.server.write_tenants([self.hello, self.echo])
        self.await_status("/echo", 200)

    def test_a_hangup_is_a_hint_to_look(self):
        # With the watch off, nothing else is.
        with Server([self.hello], tenants_file=True, config={"watch": False}, admin={}) as server:
            server.write_tenants([self.hello, self.echo])
            for _ in range(3):
                self.assertEqual(server.get("/echo").status, 404)
            server.signal(signal.SIGHUP)
            server.await_that(lambda: server.get("/echo").status == 200, "SIGHUP was not heard")

    def test_a_changed_limit_is_a_new_generation(self):
        self.server.write_tenants([{**self.hello, "limits": {"request_kib": 4}}])
        large = b"x" * 8000
        self.server.await_that(lambda: self.server.fetch("POST", "/hello", large).status == 413, "no new limit")
        self.assertEqual(self.server.tenant_status("hello", KEY)["generation"], 2)


class WatchedFiles(unittest.TestCase):
    def test_a_script_that_is_edited_is_a_new_generation(self):
        with contextlib.ExitStack() as stack:
            app = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-app-")))
            (app / "lib").mkdir()
            (app / "main.mjs").write_text("one")
            hello = tenant("hello", "/hello", mounts=[{"host": str(app), "at": "/app"}], watch=["/app/main.mjs", "/app/lib"])
            admin = {"key_sha256": digest(KEY)}
            server = stack.enter_context(Server([hello], tenants_file=True, admin=admin))
            self.assertEqual(server.get("/hello").body, HELLO)

            def generation():
                return server.tenant_status("hello", KEY)["generation"]

            for change in (
                lambda: replace(app / "main.mjs", b"two!"),
                lambda: (app / "lib/new.mjs").write_text("in a directory"),
                lambda: (app / "lib/deep").mkdir(),
                lambda: (app / "lib/deep/new.mjs").write_text("in one that was not there"),
                lambda: (app / "main.mjs").write_text("three"),
            ):
                former = generation()
                change()
                server.await_that(lambda n=former: generation() > n, "a change was not seen")
            # Whatever of the last change was seen, all of it is now; and what is not named does not count.
            server.operate("POST", "reload", key=KEY)
            (app / "other.mjs").write_text("x")
            looked = server.operate("POST", "reload", key=KEY)
            self.assertEqual((looked.status, looked.json()["programs"]), (200, []))
            self.assertEqual(server.get("/hello").body, HELLO)


class Handover(unittest.TestCase):
    def test_a_new_version_takes_the_old_ones_state_over(self):
        visits = tenant("visits", "/visits", ephemeral=False)
        # One thread: each has a worker of its own, with a state of its own.
        with Server([visits], threads=1, admin={"key_sha256": digest(KEY)}) as server:
            server.await_workers("visits", 1, KEY)
            for count in range(1, 6):
                for visit in range(3):
                    self.assertEqual(server.get("/visits").body, b"visit %d\n" % (3 * (count - 1) + visit + 1))
                answer = server.operate("POST", "tenants/visits/reload", key=KEY)
                self.assertEqual((answer.status, answer.json()["generation"]), (200, count + 1))


if __name__ == "__main__":
    unittest.main()
