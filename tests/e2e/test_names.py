# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runtimes that ask a name server themselves, and send datagrams: Node.js (c-ares) and Go's own resolver."""

import tempfile
import unittest
from pathlib import Path

from mayfly_server import REPOSITORY, TENANTS, Server
from test_runtimes import tenants_file

NODE = """
import dgram from "node:dgram";
import dns from "node:dns/promises";
import http from "node:http";

// An echo of datagrams that stands ready before the freeze.
const echo = dgram.createSocket("udp4");
echo.on("message", (text, from) => echo.send(text, from.port, from.address));
await new Promise((resolve) => echo.bind(0, "127.0.0.1", resolve));

const ask = (text) => new Promise((resolve, reject) => {
  const client = dgram.createSocket("udp4");
  client.on("message", (answer, from) => {
    client.close();
    resolve([answer.toString(), from.address, from.port === echo.address().port]);
  });
  client.on("error", (error) => { client.close(); reject(error); });
  client.connect(echo.address().port, "127.0.0.1", () => client.send(text));
});

const away = (host) => new Promise((resolve) => {
  const client = dgram.createSocket("udp4");
  client.send("x", 8125, host, (error) => { client.close(); resolve(error ? error.code : "sent"); });
});

const answers = {
  "/resolve4": (name) => dns.resolve4(name),
  "/resolve6": (name) => dns.resolve6(name),
  "/lookup": (name) => dns.lookup(name),
  "/ptr": (name) => dns.resolvePtr(name),
  "/ask": ask,
  "/away": away,
};

http.createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const [name] = searchParams.keys();
  const path = pathname.slice(pathname.lastIndexOf("/"));
  let answer;
  try {
    answer = await answers[path](name);
  } catch (error) {
    answer = error.code ?? String(error);
  }
  response.end(JSON.stringify(answer));
}).listen(8000, "127.0.0.1");
"""

OUTBOUND = ["db.invalid:5432", "cache.invalid:6379"]


class Names(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-names-")))
        (self.folder / "server.mjs").write_text(NODE)
        file = tenants_file()
        of_go = next(tenant for tenant in file["tenants"] if tenant["name"] == "go")
        common = {"serve": "connections", "boot": "start", "outbound": OUTBOUND, "port": 8000}
        tenants = [
            {
                "name": "node", "path": "/node", "program": str(TENANTS / "node/bin/node"), "args": ["/app/server.mjs"],
                "mounts": [{"host": str(self.folder), "at": "/app"}], "env": {"HOME": "/proc/none"}, **common,
            },
            {"name": "go", "path": "/go", "program": of_go["program"], "args": ["8000"], **common},
        ]
        config = {"root": str(REPOSITORY), "defaults": file["defaults"]}
        self.server = self.enterContext(Server(tenants, threads=1, config=config))

    def fetch(self, path):
        return self.server.get(path).json()

    def test_node_finds_names_by_dns(self):
        self.server.await_boot("/node/lookup?localhost")
        for _ in range(3):
            self.assertEqual(self.fetch("/node/resolve4?db.invalid"), ["198.18.0.2"])
            self.assertEqual(self.fetch("/node/resolve4?cache.invalid"), ["198.18.0.3"])
            self.assertEqual(self.fetch("/node/resolve4?other.invalid"), "ENOTFOUND")
            self.assertEqual(self.fetch("/node/resolve6?db.invalid"), "ENODATA")
            self.assertEqual(self.fetch("/node/lookup?db.invalid"), {"address": "198.18.0.2", "family": 4})
            self.assertEqual(self.fetch("/node/lookup?other.invalid"), "ENOTFOUND")
            self.assertEqual(self.fetch("/node/ptr?3.0.18.198.in-addr.arpa"), ["cache.invalid"])

    def test_node_sends_datagrams_to_itself_alone(self):
        self.server.await_boot("/node/lookup?localhost")
        for number in range(3):
            self.assertEqual(self.fetch(f"/node/ask?hello{number}"), [f"hello{number}", "127.0.0.1", True])
        self.assertEqual(self.fetch("/node/away?198.18.0.2"), "EACCES")
        self.server.await_that(
            lambda: "may not send datagrams to db.invalid:8125" in self.server.log(), "the log does not say so"
        )

    def test_go_finds_names_by_dns(self):
        self.server.await_boot("/go/")
        for _ in range(3):
            self.assertEqual(self.fetch("/go/lookup?db.invalid"), ["198.18.0.2"])
            # Names that are not in /etc/hosts.
            self.assertEqual(sorted(self.fetch("/go/lookup?a.localhost")), ["127.0.0.1", "::1"])
            other = self.server.get("/go/lookup?other.invalid")
            self.assertEqual((other.status, other.body), (502, b"lookup other.invalid on 127.0.0.53:53: no such host\n"))


if __name__ == "__main__":
    unittest.main()
