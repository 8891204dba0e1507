# SPDX-License-Identifier: MIT OR Apache-2.0
"""Durable mounts: what was answered after fsync is there after the server was killed."""

import concurrent.futures
import re
import shutil
import tempfile
import unittest
from pathlib import Path

from mayfly_server import TENANTS, Server

THREADS = 3
CLIENTS = 4

SERVE = """
import os, sqlite3, sys, time
sys.path.insert(0, '/tenants/sdk/python')
import mayfly

for name in ('base', 'wal'):
    base = sqlite3.connect('/data/' + name, timeout=20, isolation_level=None)
    base.execute('pragma journal_mode=' + ('wal' if name == 'wal' else 'delete'))
    base.execute('create table if not exists t(a integer primary key, b text)')
    base.close()

def page(request):
    path = request.path.strip('/').split('/')[1:]
    if path[0] == 'count':
        base = sqlite3.connect('/data/' + path[1], timeout=20)
        names = ' '.join(row[0] for row in base.execute('select b from t'))
        mode = base.execute('pragma journal_mode').fetchone()[0]
        return mayfly.Response(base.execute('pragma integrity_check').fetchone()[0] + f' {mode} {names}')
    if path[0] in ('base', 'wal'):
        base = sqlite3.connect('/data/' + path[0], timeout=20, isolation_level=None)
        base.execute('pragma synchronous=full')
        base.execute('insert into t(b) values (?)', (path[1],))
        base.close()
        return mayfly.Response(path[1])
    if path[0] == 'line':
        log = os.open('/data/log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, (path[1] + '\\n').encode())
        os.fsync(log)
        os.close(log)
        return mayfly.Response(path[1])
    if path[0] == 'hold':
        base = sqlite3.connect('/data/' + path[1], timeout=20, isolation_level=None)
        base.execute('begin exclusive')
        base.execute('insert into t(b) values (?)', ('lost',))
        while True:
            time.sleep(1)
    return mayfly.Response('?')

mayfly.serve(page)
"""


@unittest.skipUnless(shutil.which("python3") and (TENANTS / "sdk/python").is_dir(), "needs Python and the samples")
class Durable(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-durable-")))
        self.data = self.folder / "data"
        self.data.mkdir()
        (self.folder / "main.py").write_text(SERVE)
        python = Path("/usr/bin/python3").resolve()
        system = [{"host": path} for path in ("/lib", "/lib64", "/usr/lib", "/usr/bin") if Path(path).is_dir()]
        self.tenant = {
            "name": "rows", "path": "/rows", "program": str(python), "args": ["-I", "-B", "/app/main.py"],
            "boot": "start",
            "limits": {"wall_ms": 20000, "cpu_ms": 10000, "memory_mib": 256, "boot_memory_mib": 512, "boot_ms": 30000},
            "mounts": system + [
                {"host": str(self.folder), "at": "/app"},
                {"host": str(TENANTS.resolve()), "at": "/tenants"},
                {"host": str(self.data), "at": "/data", "writable": "durable", "mib": 16, "files": 20},
            ],
        }

    def test_what_was_answered_after_fsync_survives_a_kill(self):
        with Server([self.tenant], threads=THREADS) as server:
            server.await_boot("/rows/count/base")
            answered = []
            for life in range(3):

                def client(number):
                    done = []
                    with server.connect() as connection:
                        for request in range(1000):
                            name = f"{life}-{number}-{request}"
                            kind = ("base", "wal", "line")[request % 3]
                            try:
                                answer = connection.fetch("GET", f"/rows/{kind}/{name}")
                            except OSError:
                                return done
                            if answer.status == 200:
                                done.append((kind, name))
                            if len(done) > 10 and number == 0:
                                server.kill()
                    return done

                with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
                    for done in clients.map(client, range(CLIENTS)):
                        answered += done
                server.start()
                server.await_boot("/rows/count/base")
                found = {}
                for base, journal in (("base", "delete"), ("wal", "wal")):
                    check, mode, *found[base] = server.get(f"/rows/count/{base}").body.decode().split()
                    self.assertEqual((check, mode), ("ok", journal))
                lines = found["line"] = (self.data / "log").read_text().split()
                for kind, name in answered:
                    self.assertIn(name, found[kind])
                self.assertTrue(all(re.fullmatch(r"\d-\d-\d+", line) for line in lines), lines)
            self.assertGreater(len(answered), 30)

    def test_a_request_over_its_limit_leaves_no_lock(self):
        self.tenant["limits"]["wall_ms"] = 5000  # Also for what is to succeed.
        with Server([self.tenant], threads=THREADS) as server:
            server.await_boot("/rows/count/base")
            for base, journal in (("base", "delete"), ("wal", "wal")):
                self.assertEqual(server.get(f"/rows/hold/{base}").status, 504)
                self.assertEqual(server.get(f"/rows/{base}/next").status, 200)
                self.assertEqual(server.get(f"/rows/count/{base}").body.decode(), f"ok {journal} next")


if __name__ == "__main__":
    unittest.main()
