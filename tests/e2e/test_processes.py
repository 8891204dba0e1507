# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that want other processes: refused, and never silently. The client gets what the program makes of it."""

import re
import tempfile
import unittest
from pathlib import Path

from mayfly_server import Server

SERVER = '''
import http.server, os, subprocess

def fork():
    try:
        return os.fork() and "parent"
    except OSError as error:
        return f"error {error.errno}"

def popen():
    try:
        return subprocess.run(["/bin/echo", "hi"], capture_output=True).stdout.decode()
    except OSError as error:
        return f"error {error.errno}"

WAYS = {
    "/system": lambda: str(os.system("echo hi") != 0),
    "/popen": lambda: os.popen("echo hi").read(),
    "/run": popen,
    "/fork": fork,
    "/none": lambda: "none",
}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            body = WAYS[self.path]().encode()
        except OSError as error:
            body = f"error {error.errno}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
'''


class Processes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-"))
        (Path(directory) / "server.py").write_text(SERVER)
        mounts = [{"host": path} for path in ("/usr", "/lib", "/lib64", "/bin") if Path(path).is_dir()]
        program = {
            "name": "commands",
            "path": "/",
            "program": "/usr/bin/python3",
            "args": ["/app/server.py"],
            "mounts": [*mounts, {"host": directory, "at": "/app"}],
            "serve": "connections",
            "limits": {"threads": 16, "cpu_ms": 20_000, "memory_mib": 256},
        }
        cls.server = cls.enterClassContext(Server([program], admin={}))

    def counted(self):
        return self.server.tenant_status("commands")["refused_processes"]

    def test_each_refusal_is_counted_and_told(self):
        response = self.server.await_boot("/none")
        self.assertEqual((response.status, response.body), (200, b"none"), self.server.log()[-3000:])
        for path in ("/system", "/popen", "/run", "/fork"):
            with self.subTest(path):
                before = self.counted().get("fork", 0)
                lines = self.server.log().count("was refused another process")
                response = self.server.get(path)
                self.assertEqual(response.status, 200)
                self.assertNotIn(b"hi", response.body)
                made = self.counted()["fork"] - before
                self.assertGreater(made, 0)
                self.server.await_that(
                    lambda: self.server.log().count("was refused another process") == lines + 1, "the request's line"
                )
                told = re.findall(r"was refused another process.* tenant=commands request=\w+ forks=(\d+) execs=0", self.server.log())
                self.assertEqual(int(told[-1]), made)
        self.server.await_log(r"mayfly::tenant: .*for another process.*use a library.* tenant=commands")
        total = self.counted()["fork"]
        metrics = self.server.operate("GET", "metrics").body.decode()
        self.assertIn(f'mayfly_tenant_refused_processes_total{{tenant="commands",call="fork"}} {total}\n', metrics)
        self.assertEqual(self.server.get("/none").body, b"none")
        self.assertEqual(self.counted()["fork"], total)


if __name__ == "__main__":
    unittest.main()
