# SPDX-License-Identifier: MIT OR Apache-2.0
"""What real runtimes ask of the system: how much memory they have, how much room there is, locks, shared memory."""

import json
import tempfile
import unittest
from pathlib import Path

from mayfly_server import TENANTS, Server
from test_runtimes import await_boot

PYTHON = '''
import _posixshmem, fcntl, http.server, importlib, json, mmap, multiprocessing, multiprocessing.pool, os
import resource, shutil, socket, sys, threading, time

sys.path.insert(0, "/tmp/modules")
os.makedirs("/tmp/modules", exist_ok=True)

def status(label):
    return int(next(line for line in open("/proc/self/status") if line.startswith(label)).split()[1])

def memory():
    before = status("VmRSS")
    block = bytearray(os.urandom(1) * (16 << 20))
    grown = status("VmRSS") - before
    size = len(block)
    del block
    return {"before": before, "grown": grown, "size": size, "mapped": status("VmSize"),
            "usage": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}

def room():
    return {"tmp": shutil.disk_usage("/tmp").free, "root": shutil.disk_usage("/").free,
            "read_only": [bool(os.statvfs(path).f_flag & os.ST_RDONLY) for path in ("/tmp", "/app")]}

def pool():
    with multiprocessing.pool.ThreadPool(3) as workers:
        return workers.map(lambda number: number * number, range(5))

def semaphores():
    lock, count = multiprocessing.Lock(), multiprocessing.Semaphore(2)
    taken = [count.acquire(block=False) for _ in range(3)]
    with lock:
        return {"taken": taken, "locked": not lock.acquire(block=False)}

def shared():
    # The module's class would start a process that tracks what is shared.
    fd = _posixshmem.shm_open("/mine", os.O_CREAT | os.O_RDWR, mode=0o600)
    os.ftruncate(fd, 100)
    memory = mmap.mmap(fd, 100)
    memory[:5] = b"hello"
    seen = open("/dev/shm/mine", "rb").read(5).decode()
    return {"seen": seen, "names": os.listdir("/dev/shm")}

def left():
    return os.listdir("/dev/shm") + os.listdir("/tmp/modules")

def module():
    found = []
    for name in ("first", "second"):
        with open(f"/tmp/modules/{name}.py", "w") as file:
            file.write(f"VALUE = {name!r}\\n")
        found.append(importlib.import_module(name).VALUE)
    return found

def locks():
    with open("/tmp/lock", "w") as one, open("/tmp/lock", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "none"
        except BlockingIOError:
            return "conflict"

def socket_file():
    server = socket.socket(socket.AF_UNIX)
    server.bind("/tmp/app.sock")
    os.chmod("/tmp/app.sock", 0o600)
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("/tmp/app.sock")
    mode = oct(os.stat("/tmp/app.sock").st_mode)
    os.unlink("/tmp/app.sock")
    return mode

def started():
    stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
    boot = next(int(line.split()[1]) for line in open("/proc/stat") if line.startswith("btime"))
    return time.time() - (boot + int(stat[19]) / os.sysconf("SC_CLK_TCK"))

def identity():
    os.setgid(os.getgid())
    os.setuid(os.getuid())
    return [socket.gethostbyname(socket.gethostname()), socket.getservbyname("https"), socket.if_nametoindex("lo")]

WAYS = {"/" + way.__name__: way for way in
        (memory, room, pool, semaphores, shared, left, module, locks, socket_file, started, identity)}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            body, code = WAYS[self.path](), 200
        except Exception as error:
            body, code = repr(error), 500
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
'''

NODE = """
const http = require("node:http");
http.createServer((request, response) => {
    const before = process.memoryUsage().rss;
    const block = Buffer.alloc(16 << 20, 7);
    const grown = process.memoryUsage.rss() - before;
    response.end(JSON.stringify({ before, grown, size: block.length, peak: process.resourceUsage().maxRSS * 1024,
        constrained: process.constrainedMemory ? process.constrainedMemory() : null,
        interfaces: Object.keys(require("node:os").networkInterfaces()) }));
}).listen(8000);
"""


class System(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (directory / "server.py").write_text(PYTHON)
        (directory / "server.js").write_text(NODE)
        mounts = [{"host": path} for path in ("/usr", "/lib", "/lib64", "/bin") if Path(path).is_dir()]
        common = {
            "mounts": [*mounts, {"host": str(directory), "at": "/app"}],
            "serve": "connections",
            "warm_up": [{"path": "/", "times": 1}],
            "limits": {"threads": 64, "cpu_ms": 20_000, "memory_mib": 512},
        }
        python = {"name": "python", "hosts": ["python"], "program": "/usr/bin/python3", "args": ["/app/server.py"]}
        node = {"name": "node", "hosts": ["node"], "program": str(TENANTS / "node/bin/node"), "args": ["/app/server.js"]}
        cls.server = cls.enterClassContext(Server([{**common, **python}, {**common, **node}], admin={}))
        cls.booted = set()

    def ask(self, way, host="python"):
        if host not in self.booted:
            await_boot(self.server, host)
            self.booted.add(host)
        response = self.server.get(f"/{way}", host=host)
        self.assertEqual(response.status, 200, f"{response.body}\n{self.server.log()[-2000:]}")
        return json.loads(response.body)

    def test_python_knows_its_memory(self):
        first = self.ask("memory")
        self.assertTrue(4_000 < first["before"] < 60_000, first)
        self.assertTrue(first["size"] * 0.95 < first["grown"] * 1024 < first["size"] * 1.3, first)
        self.assertGreater(first["usage"], first["before"] + 15_000)
        # Nothing of a request shows in the next one.
        for _ in range(3):
            again = self.ask("memory")
            self.assertLess(abs(again["before"] - first["before"]), 100, (first, again))

    def test_node_knows_its_memory(self):
        first = self.ask("", "node")
        self.assertTrue(20 << 20 < first["before"] < 200 << 20, first)
        self.assertTrue(first["size"] * 0.9 < first["grown"] < first["size"] * 1.5, first)
        self.assertGreaterEqual(first["peak"], first["before"])
        self.assertEqual(first["interfaces"], ["lo", "eth0"])
        for _ in range(3):
            again = self.ask("", "node")
            self.assertLess(abs(again["before"] - first["before"]), 2 << 20, (first, again))

    def test_there_is_room(self):
        room = self.ask("room")
        self.assertGreater(room["tmp"], 10 << 20)
        self.assertGreater(room["root"], 10 << 20)
        self.assertEqual(room["read_only"], [False, True])

    def test_locks_and_shared_memory(self):
        self.assertEqual(self.ask("pool"), [0, 1, 4, 9, 16])
        self.assertEqual(self.ask("semaphores"), {"taken": [True, True, False], "locked": True})
        self.assertEqual(self.ask("locks"), "conflict")
        self.assertEqual(self.ask("shared"), {"seen": "hello", "names": ["mine"]})

    def test_files_are_found_and_forgotten(self):
        for _ in range(2):
            self.assertEqual(self.ask("module"), ["first", "second"])
            self.assertEqual(self.ask("socket_file"), "0o140600")
            self.assertEqual(self.ask("left"), [])

    def test_the_program_knows_itself(self):
        self.assertTrue(-2 < self.ask("started") < 600)
        self.assertEqual(self.ask("identity"), ["127.0.0.1", 443, 1])


if __name__ == "__main__":
    unittest.main()
