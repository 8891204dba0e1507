# SPDX-License-Identifier: MIT OR Apache-2.0
"""What unmodified servers that keep their state do between requests: Node.js, Python, and a program in C."""

import tempfile
import unittest
from pathlib import Path

from mayfly_server import TENANTS, Server, program_path

KEPT = {"serve": "connections", "ephemeral": False, "boot": "start"}
LIBRARIES = [{"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr"}]

# 200 ms after its response, a request leaves a line in a file.
NODE = """
const fs = require("node:fs");
let visits = 0;
require("node:http").createServer((request, response) => {
    const visit = ++visits;
    setTimeout(() => fs.appendFileSync("/data/node", `${visit}\\n`), 200);
    response.end(`visit ${visit}`);
}).listen(8000);
"""
PYTHON = """
import http.server, threading
visits = 0
def flush(visit):
    with open("/data/python", "a") as file:
        file.write(f"{visit}\\n")
class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global visits
        visits += 1
        threading.Timer(0.2, flush, [visits]).start()
        body = f"visit {visits}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8000), Site).serve_forever()
"""


class BetweenRequests(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-background-")))
        self.data = self.folder / "data"
        self.data.mkdir()
        (self.folder / "site.js").write_text(NODE)
        (self.folder / "site.py").write_text(PYTHON)

    def server(self, name, **more):
        """A tenant that runs one of the two programs."""
        program, argument = {
            "node": (TENANTS / "node/bin/node", "/own/site.js"),
            "python": ("/usr/bin/python3", "/own/site.py"),
        }[name]
        mounts = [
            *LIBRARIES, {"host": str(self.folder), "at": "/own"},
            {"host": str(self.data), "at": "/data", "writable": "durable"},
        ]  # fmt: skip
        where = {"hosts": [name], "port": 8000, "mounts": mounts}
        return {"name": name, "program": str(program), "args": [argument], **where, **KEPT, **more}

    def upkeep(self, name, **more):
        return {"name": name, "program": program_path("upkeep"), "hosts": [name], "settle_ms": 0, **KEPT, **more}

    def lines(self, name):
        file = self.data / name
        return file.read_text().split() if file.exists() else []

    def test_a_task_that_is_due_after_the_response_runs_although_no_request_comes(self):
        for workers in ({"workers": 1}, {}):
            tenants = [self.server(name, **workers) for name in ("node", "python")]
            with self.subTest(workers), Server(tenants, threads=1, admin={}) as server:
                for name in ("node", "python"):
                    self.assertEqual(server.await_boot("/", host=name).body, b"visit 1")
                for name in ("node", "python"):
                    server.await_that(lambda name=name: self.lines(name) == ["1"], f"{name}'s task does not run")
                    self.assertEqual(server.get("/", host=name).body, b"visit 2", "with its state")
                    server.await_that(lambda name=name: self.lines(name) == ["1", "2"], f"{name}'s task does not run")
                    status = server.tenant_status(name)
                    self.assertGreater(status["background_cpu_seconds"], 0)
                    self.assertEqual((status["background_failures"], status["errors"]), (0, {}))
                    (self.data / name).unlink()
                metrics = server.operate("GET", "metrics").body.decode()
                self.assertRegex(metrics, r'mayfly_tenant_background_cpu_seconds_total\{tenant="node"\} 0\.\d')

    def test_one_that_never_rests_has_its_share_and_everybody_is_answered(self):
        spinning = [
            self.upkeep("one", workers=1, limits={"background_cpu": 0.1}), self.upkeep("own"), self.upkeep("calm"),
        ]  # fmt: skip
        with Server(spinning, threads=2, admin={}) as server:
            for name in ("one", "own"):
                self.assertEqual(server.await_boot("/spin", host=name).status, 200)
            self.assertEqual(server.await_boot("/visits", host="calm").status, 200)
            began = server.tenant_status("one")["background_cpu_seconds"]
            used = lambda: server.tenant_status("one")["background_cpu_seconds"] - began  # noqa: E731
            with server.connect() as connection:
                for _ in range(50):
                    for name in ("one", "own", "calm"):
                        self.assertEqual(connection.fetch("GET", "/count", host=name).status, 200)
            server.await_that(lambda: used() > 0.1, "it does not run")
            for name in ("one", "own", "calm"):
                self.assertEqual(server.tenant_status(name)["errors"], {}, name)

    def test_a_worker_that_is_lost_is_logged_and_replaced(self):
        with Server([self.upkeep("one", workers=1)], threads=2, admin={}) as server:
            self.assertEqual(server.await_boot("/visits", host="one").body, b"1")
            self.assertEqual(server.get("/exit?100", host="one").status, 200)
            server.await_log(r"a worker was lost between two requests.*exited with status 3")
            idle = {"number": 1, "idle": 1, "waiting": 0}
            server.await_that(lambda: server.tenant_status("one")["workers"] == idle, "no worker is idle")
            self.assertEqual(server.get("/visits", host="one").body, b"1")
            self.assertEqual(server.tenant_status("one")["background_failures"], 1)


if __name__ == "__main__":
    unittest.main()
