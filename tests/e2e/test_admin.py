# SPDX-License-Identifier: MIT OR Apache-2.0
"""What operators and owners do with a running server. The listener's own tests are in rust/admin."""

import signal
import unittest

from load import Load
from mayfly_server import Server, digest, program_path, tenant

OPERATOR, OWNER, OTHER = "operator", "owner", "other"
HELLO = b"Hello World!"


def elf(name):
    with open(program_path(name), "rb") as file:
        return file.read()


class Admin(unittest.TestCase):
    def setUp(self):
        tenants = [
            tenant("app", "/app", "hello", upload_key_sha256=digest(OWNER), health={"path": "/app"}),
            tenant("other", "/other", "hello", upload_key_sha256=digest(OTHER)),
            tenant("plain", "/plain", "hello"),
        ]
        admin = {"key_sha256": digest(OPERATOR), "uploads": "uploads", "upload_mib": 4}
        self.server = self.enterContext(Server(tenants, admin=admin))

    def upload(self, program, name="app", key=OWNER):
        return self.server.operate("PUT", f"tenants/{name}/program", program, key)

    def test_an_upload_is_served_at_once_and_after_a_restart(self):
        self.assertEqual(self.server.get("/app").body, HELLO)
        answer = self.upload(elf("echo"))
        self.assertEqual((answer.status, answer.json()["generation"]), (200, 2))
        for _ in range(16):  # Some reach each thread.
            self.assertEqual(self.server.get("/app").json()["path"], "/app")
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.get("/app").json()["path"], "/app")
        self.assertEqual(self.server.get("/other").body, HELLO)

    def test_a_rollback_brings_the_former_program_back(self):
        self.assertEqual(self.server.operate("POST", "tenants/app/rollback", key=OWNER).status, 409)
        self.assertEqual(self.upload(elf("echo")).status, 200)
        self.assertEqual(self.server.operate("POST", "tenants/app/rollback", key=OWNER).status, 200)
        for _ in range(16):
            self.assertEqual(self.server.get("/app").body, HELLO)
        self.server.kill()
        self.server.start()
        self.assertEqual(self.server.get("/app").body, HELLO)

    def test_a_bad_upload_changes_nothing_and_its_sender_is_told(self):
        bad = {
            b"": (422, "boot-failed"),
            b"#!/bin/sh\n": (422, "boot-failed"),
            elf("hello")[:10_000]: (422, "boot-failed"),
            elf("counter"): (422, "boot-failed"),  # It wants shared memory.
            elf("notes"): (422, "unhealthy"),  # It answers /app with 404.
        }
        for program, (status, error) in bad.items():
            with self.subTest(error):
                answer = self.upload(program)
                self.assertEqual((answer.status, answer.json()["error"]), (status, error), answer.body)
                self.assertGreater(len(answer.json()["reason"]), 10)
                self.assertEqual(self.server.get("/app").body, HELLO)
        self.assertEqual(self.server.tenant_status("app", OPERATOR)["generation"], 1)

    def test_an_upload_above_its_limit_is_refused_before_it_is_sent(self):
        headers = [("authorization", f"Bearer {OWNER}"), ("expect", "100-continue"), ("content-length", str(5 << 20))]
        answer = self.server.operate("PUT", "tenants/app/program", headers=headers)
        self.assertEqual((answer.status, answer.json()["error"]), (413, "program-too-large"))

    def test_nobody_changes_anything_without_the_right_key(self):
        for key in (None, "", OTHER, "nonsense", digest(OWNER)):
            with self.subTest(key):
                self.assertEqual(self.upload(elf("echo"), key=key).status, 401)
                for what in ("rollback", "reload"):
                    self.assertEqual(self.server.operate("POST", f"tenants/app/{what}", key=key).status, 401)
                self.assertEqual(self.server.operate("POST", "reload", key=key).status, 401)
                for what in ("status", "metrics"):
                    self.assertEqual(self.server.operate("GET", what, key=key).status, 401)
        # A tenant without a key of its own is the operator's alone.
        self.assertEqual(self.upload(elf("echo"), "plain").status, 401)
        self.assertEqual(self.upload(elf("echo"), "plain", OPERATOR).status, 200)
        self.assertEqual(self.server.get("/app").body, HELLO)
        self.assertEqual(self.server.operate("GET", "health").status, 200)

    def test_the_tenants_port_knows_nothing_of_it(self):
        for path in ("status", "metrics", "health", "tenants/app/program"):
            self.assertEqual(self.server.get(f"/_mayfly/{path}").status, 404)

    def test_the_metrics_count_what_was_asked(self):
        for _ in range(7):
            self.server.get("/app")
        for path in ("/nowhere", "/nowhere/else"):
            self.assertEqual(self.server.get(path).status, 404)
        # The application's own route.
        self.assertEqual(self.server.get("/").status, 200)
        metrics = self.server.operate("GET", "metrics", key=OPERATOR)
        self.assertTrue(metrics.header("content-type").startswith("text/plain; version=0.0.4"))
        lines = metrics.body.decode().splitlines()
        self.assertIn('mayfly_tenant_requests_total{tenant="app"} 7', lines)
        self.assertIn('mayfly_tenant_requests_total{tenant="plain"} 0', lines)
        self.assertIn('mayfly_tenant_ready{tenant="app"} 1', lines)
        self.assertIn("mayfly_unrouted_requests_total 2", lines)
        figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        self.assertGreater(float(figures['mayfly_tenant_cpu_seconds_total{tenant="app"}']), 0)
        self.assertEqual(float(figures['mayfly_tenant_cpu_seconds_total{tenant="plain"}']), 0)
        used, most = (float(figures[f"mayfly_process_descriptors{end}"]) for end in ("", "_max"))
        self.assertTrue(10 < used <= most, (used, most))

    def test_whoever_asks_learns_whether_the_server_is_ready(self):
        ready = self.server.operate("GET", "ready")
        self.assertEqual((ready.status, ready.json()), (200, {"ready": True, "ending": False, "booting": 0, "failed": 0}))
        slow = tenant("slow", "/slow", "faults", args=["boot:spin=7000"], limits={"boot_ms": 60_000})
        broken = tenant("broken", "/broken", "faults", args=["boot:exit=1"])
        with Server([slow, broken], admin={}) as server:
            ready = server.operate("GET", "ready")
            self.assertEqual((ready.status, ready.json()["ready"], ready.header("retry-after")), (503, False, "1"))
            self.assertEqual(server.await_boot("/slow/ok").status, 200)
            self.assertEqual(server.operate("GET", "ready").json(), {"ready": True, "ending": False, "booting": 0, "failed": 1})

    def test_a_server_that_is_stopped_in_the_middle_of_a_reload_ends(self):
        # Server demands that it ends, and with status 0.
        def reload(_):
            answer = self.server.operate("POST", "tenants/app/reload", key=OPERATOR)
            return None if answer.status in (200, 503) else str(answer)

        with Load(self.server, reload, clients=2) as load:
            self.server.await_that(lambda: load.count > 3, "no reload")
        self.server.signal(signal.SIGHUP)


if __name__ == "__main__":
    unittest.main()
