# SPDX-License-Identifier: MIT OR Apache-2.0
"""Both engines in one server, and what the server and `mayfly info` say of them. Needs a KVM of either kind."""

import json
import os
import subprocess
import unittest

from mayfly_server import REPOSITORY, Server, program_path, run_until_exit, tenant

MAYFLY = REPOSITORY / "build/bin/mayfly"
HELLO = b"Hello World!"
NOWHERE = {"MAYFLY_KVM_PATH": "/nonexistent/kvm", "MAYFLY_ENGINE": "auto"}
# What `echo` shows of the request that no two requests share.
OF_EACH_REQUEST = ("id", "entropy", "unix_ns", "monotonic_ns")


def info(**environment):
    """The exit status of `mayfly info --json`, and what it prints."""
    command = [MAYFLY, "info", "--json"]
    done = subprocess.run(command, capture_output=True, env=dict(os.environ, **environment), text=True, check=False)
    return done.returncode, json.loads(done.stdout)


class Both(unittest.TestCase):
    """One server, a tenant on each engine."""

    @classmethod
    def setUpClass(cls):
        config = {"engine": "process", "groups": {"virtual": {"engine": "kvm"}}}
        tenants = [
            tenant("echo-process", "/process/echo", "echo"),
            tenant("echo-kvm", "/kvm/echo", "echo", group="virtual"),
            tenant("pages-process", "/process/pages", "pythran"),
            tenant("pages-kvm", "/kvm/pages", "pythran", group="virtual"),
            tenant("best", "/best", "hello", engine="auto"),
        ]
        cls.server = cls.enterClassContext(Server(tenants, threads=1, config=config, admin={}))
        for name in ("echo-process", "echo-kvm", "pages-process", "pages-kvm"):
            cls.server.await_workers(name, 1)

    def test_both_answer_the_same_bytes(self):
        for _ in range(3):
            pages = [self.server.get(f"/{engine}/pages") for engine in ("process", "kvm")]
            self.assertEqual([page.status for page in pages], [200, 200])
            self.assertEqual(pages[0].body, pages[1].body)
            self.assertGreater(len(pages[0].body), 10)

    def test_both_see_the_same_request(self):
        body, headers = bytes(range(256)) * 64, [("x-shop", "a b"), ("content-type", "application/octet-stream")]
        echoed = []
        for engine in ("process", "kvm"):
            seen = self.server.fetch("POST", f"/{engine}/echo?a=%20", body, headers).body.decode()
            echoed.append(seen.replace(f"/{engine}/", "/E/"))
        self.assertEqual(self.without_id(echoed[0]), self.without_id(echoed[1]))

    def without_id(self, text):
        echoed = json.loads(text)
        self.assertIn("method", echoed)
        return {key: value for key, value in echoed.items() if key not in OF_EACH_REQUEST}

    def test_the_status_and_the_metrics_say_who_runs_where(self):
        status = self.server.status()
        engines = {found["name"]: found["engine"] for found in status["tenants"]}
        best = status["host"]["auto"]["engine"]
        self.assertEqual(engines.pop("best"), best)
        self.assertEqual(engines, {name: name.split("-")[1] for name in engines})
        self.assertEqual(status["host"]["state"], "usable")
        self.assertTrue(status["host"]["auto"]["why"])
        states = {found["engine"]: found["state"] for found in status["host"]["engines"]}
        self.assertEqual(states, {"kvm": "usable", "process": "usable"})
        metrics = self.server.operate("GET", "metrics").body.decode()
        kind = status["host"]["kvm"]
        self.assertIn(kind, ("hardware", "paging"))
        for line in (
            f'mayfly_host_usable{{kvm="{kind}"}} 1',
            f'mayfly_engine_usable{{engine="kvm",kind="{kind}"}} 1',
            'mayfly_engine_usable{engine="process",kind="process"} 1',
            'mayfly_tenant_info{tenant="pages-kvm",mode="ephemeral",engine="kvm"} 1',
        ):
            self.assertIn(line + "\n", metrics)

    def test_the_log_says_at_start_what_was_found(self):
        log = self.server.log()
        for engine in ("kvm", "process"):
            self.assertRegex(log, rf'engine is usable: .*engine="{engine}"')
        self.assertRegex(log, r'"auto" means (kvm|process): \w+')

    def test_info_agrees_with_the_server(self):
        status, found = info()
        host = self.server.status()["host"]
        self.assertEqual((status, found["usable"], found["host"]["kvm"]), (0, True, host["kvm"]))
        self.assertEqual(found["auto"], host["auto"])
        for engine in host["engines"]:
            self.assertEqual(found["engines"][engine["engine"]], {"usable": True, "details": engine["details"]})


class WithoutKvm(unittest.TestCase):
    """A host without /dev/kvm, or a container."""

    def test_tenants_run_in_processes_and_nothing_has_to_be_set(self):
        with Server([tenant("hello", "/hello")], environment=NOWHERE, admin={}) as server:
            self.assertEqual(server.await_boot("/hello").body, HELLO)
            host = server.status()["host"]
            self.assertEqual((host["state"], host["kvm"], host["auto"]["engine"]), ("usable", "none", "process"))
            self.assertEqual(server.operate("GET", "ready").status, 200)
            server.await_log(r'"auto" means process: KVM cannot be used: /nonexistent/kvm does not exist')

    def test_a_tenant_that_asks_for_kvm_says_why_it_does_not_run_and_others_run(self):
        tenants = [tenant("hello", "/hello"), tenant("echo", "/echo", engine="kvm")]
        with Server(tenants, environment=NOWHERE, admin={}) as server:
            self.assertEqual(server.await_boot("/hello").status, 200)
            response = server.get("/echo")
            self.assertEqual((response.status, response.json()["error"]), (503, "unavailable"))
            self.assertIn("/nonexistent/kvm does not exist", response.json()["reason"])
            self.assertEqual(server.operate("GET", "ready").json(), {"ready": True, "ending": False, "booting": 0, "failed": 1})

    def test_info_says_what_is_missing(self):
        status, found = info(**NOWHERE)
        self.assertEqual((status, found["auto"]["engine"], found["host"]["kvm"]), (0, "process", "none"))
        self.assertFalse(found["engines"]["kvm"]["usable"])
        self.assertIn("/nonexistent/kvm does not exist", found["engines"]["kvm"]["details"])

    def test_without_any_engine_info_fails(self):
        status, found = info(**{**NOWHERE, "MAYFLY_ENGINE": "kvm"})
        self.assertEqual((status, found["usable"], found["auto"]["engine"]), (3, False, None))
        self.assertIn("/nonexistent/kvm does not exist", found["missing"])


class Changes(unittest.TestCase):
    def await_generation(self, server, number):
        server.await_that(lambda: server.tenant_status("hello").get("generation") == number, f"no generation {number}")

    def test_a_reload_moves_a_tenant_to_another_engine(self):
        def on(engine):
            return [tenant("hello", "/hello", engine=engine)]

        with Server(on("kvm"), tenants_file=True, admin={}) as server:
            self.assertEqual(server.await_boot("/hello").status, 200)
            for generation, engine in ((2, "process"), (3, "kvm")):
                server.write_tenants(on(engine))
                self.await_generation(server, generation)
                self.assertEqual(server.tenant_status("hello")["engine"], engine)
                self.assertEqual(server.get("/hello").body, HELLO)

    def test_an_unknown_engine_is_refused_with_its_place(self):
        hello = {"name": "hello", "path": "/hello", "program": program_path("hello"), "engine": "xen"}
        plugin = {"name": "mayfly::SandboxPlugin", "config": {"tenants": [hello]}}
        status, output = run_until_exit({"plugins": [plugin]})
        self.assertNotEqual(status, 0)
        self.assertIn("tenants[0].engine: unknown variant `xen`, expected one of `auto`, `kvm`, `process`", output)


if __name__ == "__main__":
    unittest.main()
