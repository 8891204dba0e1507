# SPDX-License-Identifier: MIT OR Apache-2.0
"""What programs learn about their clients: by headers and by their connection's peer, over real connections.

Every address of 127.0.0.0/8 is this machine's, so clients and proxies differ by the address that they connect from.
"""

import contextlib
import http.client
import json
import ssl
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from mayfly_server import REPOSITORY, TENANTS, TIMEOUT_S, Connection, Server, free_port, tenant

MAYFLY = REPOSITORY / "build/bin/mayfly"
CLIENT, PROXY = "127.0.0.3", "127.0.0.2"
LIBRARIES = [{"host": "/lib"}, {"host": "/lib64"}, {"host": "/usr"}]
# Claims that a client makes about itself.
CLAIMS = [
    ("X-Forwarded-For", "10.9.9.9"),
    ("X-Forwarded-For", "10.9.9.8"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "bank.example"),
    ("X-Forwarded-Port", "443"),
    ("X-Real-IP", "10.9.9.9"),
    ("Forwarded", "for=10.9.9.9"),
    ("X_Forwarded_For", "10.9.9.9"),
    ("CF-Connecting-IP", "10.9.9.9"),
    ("CF-Visitor", '{"scheme":"https"}'),
    ("CloudFront-Forwarded-Proto", "https"),
    ("CloudFront-Viewer-Address", "10.9.9.9:1"),
    ("Fly-Client-IP", "10.9.9.9"),
    ("HTTP_CLIENT_IP", "10.9.9.9"),
    ("Connection", "keep-alive, X-Forwarded-For, Forwarded"),
]

# Answers with the headers as they came, and the peer's address by accept and by getpeername.
PYTHON = """
import json, socket, sys
v6, keeps = "v6" in sys.argv, "keeps" in sys.argv
listener = socket.create_server(("", 8000), family=socket.AF_INET6 if v6 else socket.AF_INET, dualstack_ipv6=v6)
while True:
    connection, accepted = listener.accept()
    file = connection.makefile("rb")
    while file.readline():
        headers = []
        while (line := file.readline()) not in (b"\\r\\n", b""):
            headers.append(line.decode("latin-1").rstrip("\\r\\n").split(": ", 1))
        body = json.dumps({"headers": headers, "accepted": accepted[:2], "peer": connection.getpeername()[:2]}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        if not keeps:
            break
    file.close()
    connection.close()
"""

# The application's own notion of its client.
ASGI = """
import json
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps({"client": scope["client"][0], "scheme": scope["scheme"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

# How many elements of the list are proxies', Mayfly among them, is in the variable HOPS.
FLASK = """
import os
from flask import Flask, jsonify, request
from werkzeug.middleware.proxy_fix import ProxyFix
app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=int(os.environ["HOPS"]), x_proto=1, x_host=1)

@app.get("/")
def warm():
    return "warm"

@app.get("/who")
def who():
    return jsonify(client=request.remote_addr, scheme=request.scheme, host=request.host)
"""

EXPRESS = """
import { createRequire } from 'node:module';
const express = createRequire('/app/recipes/')('express');
const app = express();
app.set('trust proxy', Number(process.argv[2]));
app.get('/', (_, response) => response.send('warm'));
app.get('/who', (request, response) => response.json({ client: request.ip, scheme: request.protocol,
    host: request.hostname, peer: request.socket.remoteAddress }));
app.listen(8000, '0.0.0.0');
"""


def fetch(port, path="/", host="x", headers=(), source=CLIENT, to="127.0.0.1", connection=None):
    """One request from an address; returns the JSON of the answer, and the client's address and port."""
    with contextlib.ExitStack() as stack:
        if connection is None:
            source = (source, 0) if "." in to else None
            connection = stack.enter_context(
                contextlib.closing(Connection(to, port, timeout=TIMEOUT_S, source_address=source))
            )
        response = connection.fetch("GET", path, headers=headers, host=host)
        assert response.status == 200, response
        return response.json(), list(connection.sock.getsockname()[:2])


def values(answer):
    """The headers of the family in an answer: of the tenant `echo`, or of the Python server."""
    headers = answer["headers"]
    pairs = [(header["name"], header["value"]) if isinstance(header, dict) else tuple(header) for header in headers]
    others = ("host", "accept-encoding", "connection", "content-length")
    found = dict(pairs)
    assert len(found) == len(pairs), pairs
    return {name: value for name, value in found.items() if name not in others}


def told(address, host="x", scheme="http"):
    return {"x-forwarded-for": address, "x-forwarded-proto": scheme, "x-forwarded-host": host}


def python(directory, name, *args, **more):
    """A tenant for `PYTHON`, which is a file in the directory."""
    return tenant(
        name, hosts=[name], serve="connections", port=8000, boot="start", args=["-B", "/own/server.py", *args],
        mounts=[*LIBRARIES, {"host": str(directory), "at": "/own"}], **more,
    ) | {"program": "/usr/bin/python3"}  # fmt: skip


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (directory / "server.py").write_text(PYTHON)
        warm_up = [{"path": "/", "times": 3}]
        trusting = {"trusted_proxies": [f"{PROXY}/32"]}
        tenants = [
            tenant("echo", "/echo"),
            tenant("trusting", "/trusting", "echo", client=trusting),
            tenant("forwarded", "/forwarded", "echo", client={"headers": "forwarded", **trusting}),
            tenant("none", "/none", "echo", client={"headers": "none"}),
            # Only in the background: no worker is forked ahead for it.
            tenant("late", "/late", "echo", boot="first_call"),
            python(directory, "closes"),
            python(directory, "keeps", "keeps", warm_up=warm_up, group="trusting"),
            python(directory, "stays", "keeps", warm_up=warm_up, ephemeral=False),
            python(directory, "v6", "v6", "keeps", warm_up=warm_up),
            python(directory, "untold", "keeps", warm_up=warm_up, client={"headers": "none"}),
        ]
        cls.v6_port = free_port()
        cls.server = cls.enterClassContext(
            Server(
                tenants,
                threads=1,
                listeners=[{"address": "::1", "port": cls.v6_port}],
                config={"groups": {"trusting": {"client": trusting}}},
            )
        )
        cls.port = cls.server.port
        for path, host in [("/echo", "x"), *(("/", name) for name in ("closes", "keeps", "stays", "v6", "untold"))]:
            cls.server.await_that(lambda p=path, h=host: cls.server.get(p, h).status == 200, f"{host}{path} is not ready")

    def test_the_sdks_request_has_the_clients_address(self):
        for path in ("/echo", "/late"):
            answer, _ = fetch(self.port, path, "shop.example:81")
            self.assertEqual(values(answer), told(CLIENT, "shop.example:81"))
        answer, _ = fetch(self.v6_port, "/echo", to="::1")
        self.assertEqual(values(answer), told("::1"))

    def test_what_a_client_claims_is_removed(self):
        for path, host in [("/echo", "x"), ("/trusting", "x"), ("/", "closes"), ("/", "keeps"), ("/", "stays")]:
            with self.subTest(path, host=host):
                answer, _ = fetch(self.port, path, host, CLAIMS)
                self.assertEqual(values(answer), told(CLIENT, host))
        for path, host in [("/none", "x"), ("/", "untold")]:
            answer, _ = fetch(self.port, path, host, CLAIMS)
            self.assertEqual(values(answer), {})

    def test_a_trusted_proxy_is_believed(self):
        said = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")]
        more = [*said, ("X-Real-IP", "192.0.2.7"), ("Forwarded", "for=1.2.3.4"), ("x_forwarded_for", "1.2.3.4")]
        expected = told(f"192.0.2.7, {PROXY}", "shop.example", "https") | {"x-real-ip": "192.0.2.7"}
        for path, host in [("/trusting", "x"), ("/", "keeps")]:
            answer, _ = fetch(self.port, path, host, more, source=PROXY)
            self.assertEqual(values(answer), expected)
            # Another address is no proxy.
            answer, _ = fetch(self.port, path, host, more)
            self.assertEqual(values(answer), told(CLIENT, host))
        answer, _ = fetch(self.port, "/trusting", headers=[("X-Forwarded-For", "a"), ("X-Forwarded-For", "b")], source=PROXY)
        self.assertEqual(values(answer), told(f"a, b, {PROXY}"))

    def test_the_standard_notation(self):
        answer, _ = fetch(self.port, "/forwarded", "shop.example:81", CLAIMS)
        self.assertEqual(values(answer), {"forwarded": f'for={CLIENT};proto=http;host="shop.example:81"'})
        answer, _ = fetch(self.v6_port, "/forwarded", "x", CLAIMS, to="::1")
        self.assertEqual(values(answer), {"forwarded": 'for="[::1]";proto=http;host=x'})
        answer, _ = fetch(self.port, "/forwarded", headers=[("Forwarded", 'for="[2001:db8::7]";proto=https')], source=PROXY)
        self.assertEqual(values(answer), {"forwarded": f'for="[2001:db8::7]";proto=https, for={PROXY}'})
        # A list that cannot be continued does not make the proxy the client.
        answer, _ = fetch(self.port, "/forwarded", headers=[("Forwarded", 'for="a, for=192.0.2.7')], source=PROXY)
        self.assertEqual(values(answer), {"forwarded": f"for=unknown, for={PROXY}"})

    def test_the_peer_of_a_connection_is_the_client(self):
        # Accepted in the request, by every request.
        for _ in range(3):
            answer, address = fetch(self.port, "/", "closes")
            self.assertEqual((answer["accepted"], answer["peer"]), (address, address))
        # Accepted before the freeze: getpeername says who asks now.
        for host in ("keeps", "stays"):
            for source in (CLIENT, PROXY, "127.0.0.4", CLIENT):
                answer, address = fetch(self.port, "/", host, source=source)
                self.assertEqual(answer["peer"], address)
                self.assertEqual(answer["accepted"][0], "127.0.0.1")
                self.assertNotEqual(answer["accepted"], address)
        # A socket for both versions shows mapped addresses, and real ones; one for IPv4 cannot show the latter, and shows
        # an address that no program trusts.
        answer, address = fetch(self.port, "/", "v6")
        self.assertEqual(answer["peer"], [f"::ffff:{CLIENT}", address[1]])
        answer, address = fetch(self.v6_port, "/", "v6", to="::1")
        self.assertEqual(answer["peer"], ["::1", address[1]])
        for host in ("keeps", "stays", "closes"):
            answer, address = fetch(self.v6_port, "/", host, to="::1")
            self.assertEqual((answer["peer"], values(answer)), (["192.0.0.8", address[1]], told("::1", host)))
        answer, address = fetch(self.port, "/", "untold")
        self.assertEqual((answer["peer"][0], answer["peer"]), ("127.0.0.1", answer["accepted"]))

    def test_requests_of_one_connection_have_one_client(self):
        connection = Connection("127.0.0.1", self.port, timeout=TIMEOUT_S, source_address=(CLIENT, 0))
        with contextlib.closing(connection):
            for number in range(20):
                path, host = [("/echo", "x"), ("/", "keeps"), ("/", "stays")][number % 3]
                answer, address = fetch(self.port, path, host, connection=connection)
                self.assertEqual(values(answer), told(CLIENT, host))
                self.assertEqual(answer.get("peer", address), address)

    def test_limits_hold_with_the_added_headers(self):
        many = [(f"X-{number}", "y" * 500) for number in range(90)]
        answer, _ = fetch(self.port, "/echo", headers=many)
        self.assertEqual(len(answer["headers"]), 90 + 1 + 3)
        # A list as long as a head may be, of any bytes.
        for value in ("a, " * 20_000, "\xff" * 60_000, '"' * 60_000):
            for path in ("/echo", "/trusting", "/forwarded"):
                for name in ("X-Forwarded-For", "Forwarded"):
                    answer, _ = fetch(self.port, path, headers=[(name, value)], source=PROXY)
                    own = "forwarded" if path == "/forwarded" else "x-forwarded-for"
                    (header,) = [header for header in answer["headers"] if header["name"] == own]
                    if path == "/echo":
                        self.assertEqual(header["value"], PROXY)
                    elif "value" in header:
                        self.assertIn(PROXY, header["value"])
        connection = Connection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            response = connection.fetch("GET", "/echo", headers=[("X-Forwarded-For", "a" * 70_000)])
            self.assertEqual(response.status, 431)


class Secure(Connection, http.client.HTTPSConnection):
    """A kept-alive connection with TLS."""


class Https(unittest.TestCase):
    """A listener with TLS beside one without."""

    @classmethod
    def setUpClass(cls):
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (directory / "server.py").write_text(PYTHON)
        cert, key = directory / "cert.pem", directory / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=shop.example", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=TIMEOUT_S)
        cls.context = ssl.create_default_context(cafile=cert)
        warm_up = [{"path": "/", "times": 3}]
        trusting = {"trusted_proxies": [f"{PROXY}/32"]}
        tenants = [
            tenant("echo", "/echo", client=trusting),
            tenant("forwarded", "/forwarded", "echo", client={"headers": "forwarded"}),
            tenant("none", "/none", "echo", client={"headers": "none"}),
            python(directory, "closes"),
            python(directory, "keeps", "keeps", warm_up=warm_up),
            python(directory, "standard", "keeps", warm_up=warm_up, client={"headers": "forwarded"}),
        ]
        cls.port = free_port()
        listener = {"address": "127.0.0.1", "port": cls.port, "https": True, "cert": str(cert), "key": str(key)}
        cls.server = cls.enterClassContext(Server(tenants, threads=1, listeners=[listener]))
        for path, host in [("/echo", "x"), *(("/", name) for name in ("closes", "keeps", "standard"))]:
            cls.server.await_that(lambda p=path, h=host: cls.server.get(p, h).status == 200, f"{host}{path} is not ready")

    def connect(self, source=CLIENT):
        connection = Secure("127.0.0.1", self.port, timeout=TIMEOUT_S, source_address=(source, 0), context=self.context)
        return self.enterContext(contextlib.closing(connection))

    def test_the_scheme_is_https(self):
        connection = self.connect()
        for claims in ((), [*CLAIMS, ("X-Forwarded-Proto", "http")]):
            # The SDK's request, and that of a program that listens.
            for path, host in [("/echo", "shop.example"), ("/", "keeps"), ("/", "keeps")]:
                answer, address = fetch(self.port, path, host, claims, connection=connection)
                self.assertEqual(values(answer), told(CLIENT, host, "https"))
                self.assertEqual(answer.get("peer", address), address)
            said = f"for={CLIENT};proto=https;host="
            for path, host in [("/forwarded", "shop.example"), ("/", "standard")]:
                answer, _ = fetch(self.port, path, host, claims, connection=connection)
                self.assertEqual(values(answer), {"forwarded": said + host})
            self.assertEqual(values(fetch(self.port, "/none", headers=claims, connection=connection)[0]), {})
        # Accepted in the request.
        answer, address = fetch(self.port, "/", "closes", connection=connection)
        self.assertEqual((values(answer), answer["accepted"]), (told(CLIENT, "closes", "https"), address))

    def test_a_connection_without_tls_to_the_same_server_is_http(self):
        secure = self.connect()
        for _ in range(3):
            for path, host in [("/echo", "x"), ("/", "keeps")]:
                plain, _ = fetch(self.server.port, path, host)
                self.assertEqual(values(plain), told(CLIENT, host))
                answer, _ = fetch(self.port, path, host, connection=secure)
                self.assertEqual(values(answer), told(CLIENT, host, "https"))

    def test_a_trusted_proxy_may_say_otherwise(self):
        connection = self.connect(PROXY)
        said = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "http")]
        answer, _ = fetch(self.port, "/echo", headers=said, connection=connection)
        self.assertEqual(values(answer), told(f"192.0.2.7, {PROXY}"))
        # It says nothing about the scheme.
        answer, _ = fetch(self.port, "/echo", headers=said[:1], connection=connection)
        self.assertEqual(values(answer), told(f"192.0.2.7, {PROXY}", scheme="https"))


class Reload(unittest.TestCase):
    def test_a_change_takes_effect_with_a_reload_and_boots_nothing(self):
        def visits(client):
            return [tenant("echo", "/echo", client=client)]

        with Server(visits({}), tenants_file=True, admin={}) as server:
            server.await_boot("/echo")
            self.assertEqual(values(fetch(server.port, "/echo")[0]), told(CLIENT))
            server.write_tenants(visits({"headers": "none"}))
            server.await_that(lambda: values(fetch(server.port, "/echo")[0]) == {}, "the setting did not change")
            self.assertEqual(server.tenant_status("echo")["generation"], 1)


class Run(unittest.TestCase):
    """`mayfly run`."""

    def serve(self, address):
        port = free_port()
        directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (directory / "server.py").write_text(PYTHON)
        tenants = [
            tenant("echo", "/echo"),
            tenant("trusting", "/trusting", "echo", client={"trusted_proxies": [PROXY]}),
            python(directory, "keeps", "v6", "keeps", warm_up=[{"path": "/"}]),
        ]
        file = directory / "tenants.json"
        file.write_text(json.dumps({"tenants": tenants}))
        command = [MAYFLY, "run", "--config", file, "--listen", f"{address}:{port}", "--threads", "1"]
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
        self.addCleanup(process.wait, TIMEOUT_S)
        self.addCleanup(process.terminate)
        deadline = time.monotonic() + TIMEOUT_S
        for path, host in (("/echo", "x"), ("/", "keeps")):
            while True:
                with contextlib.suppress(OSError, AssertionError):
                    fetch(port, path, host, to=address.strip("[]"))
                    break
                self.assertLess(time.monotonic(), deadline, "`mayfly run` does not serve")
                time.sleep(0.02)
        return port

    def test_programs_learn_the_same(self):
        port = self.serve("127.0.0.1")
        self.assertEqual(values(fetch(port, "/echo", headers=CLAIMS)[0]), told(CLIENT))
        said = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
        answer, _ = fetch(port, "/trusting", headers=said, source=PROXY)
        self.assertEqual(values(answer), told(f"192.0.2.7, {PROXY}", scheme="https"))
        answer, address = fetch(port, "/", "keeps", CLAIMS)
        self.assertEqual((values(answer), answer["peer"]), (told(CLIENT, "keeps"), [f"::ffff:{CLIENT}", address[1]]))

    def test_clients_of_ipv6_too(self):
        port = self.serve("[::1]")
        self.assertEqual(values(fetch(port, "/echo", to="::1")[0]), told("::1"))
        answer, address = fetch(port, "/", "keeps", to="::1")
        self.assertEqual((values(answer), answer["peer"]), (told("::1", "keeps"), ["::1", address[1]]))


class Frameworks(unittest.TestCase):
    """What docs/configuration.md says of their settings."""

    def setUp(self):
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
        (self.directory / "asgi.py").write_text(ASGI)
        (self.directory / "wsgi.py").write_text(FLASK)
        (self.directory / "express.mjs").write_text(EXPRESS)

    def applications(self, hops, believed, **more):
        """Tenants for a server with `hops` elements in its lists. They are frozen with a warm connection, and without."""
        mounts = [
            *LIBRARIES,
            {"host": str(self.directory), "at": "/own"},
            {"host": str(TENANTS / "recipes"), "at": "/app/recipes"},
        ]
        common = {"serve": "connections", "port": 8000, "mounts": mounts, "boot": "start", **more}
        limits = {"boot_ms": 60_000, "boot_memory_mib": 2048, "memory_mib": 128, "threads": 64}
        interpreter = str(TENANTS / "recipes/venv/bin/python3")
        node = str(TENANTS / "node/bin/node")
        uvicorn = ["-B", "-m", "uvicorn", "--port=8000", "--no-access-log", "--app-dir=/own"]
        uvicorn += [f"--forwarded-allow-ips={believed}", "asgi:app"]
        waitress = ["-B", "-m", "waitress", "--listen=127.0.0.1:8000", "--threads=4", "--no-clear-untrusted-proxy-headers"]
        flask_environment = {"HOPS": str(hops), "PYTHONPATH": "/own"}
        for warm_up in ([{"path": "/", "times": 20}], []):
            for name, program, args, own in [
                ("uvicorn", interpreter, uvicorn, {"limits": limits}),
                ("flask", interpreter, [*waitress, "wsgi:app"], {"limits": limits, "env": flask_environment}),
                ("express", node, ["/own/express.mjs", str(hops)], {}),
            ]:
                host = f"{name}-{'warm' if warm_up else 'cold'}"
                tenant = {"name": host, "hosts": [host], "program": program, "args": args, "warm_up": warm_up}
                yield tenant | common | own

    def ask(self, tenants, requests, check):
        """Checks the answer of each application to each request (source, headers)."""
        with Server(tenants, threads=1) as server:
            for name in [tenant["name"] for tenant in tenants]:
                server.await_that(lambda n=name: server.get("/", n).status in (200, 404), f"{name} is not ready")
                for source, headers in requests:
                    answer, _ = fetch(server.port, "/who", name, headers, source=source)
                    with self.subTest(name, source=source):
                        check(name, source, answer)

    def test_the_applications_know_their_client(self):
        def check(name, source, answer):
            self.assertEqual((answer["client"], answer["scheme"]), (source, "http"))
            if "uvicorn" not in name:
                self.assertEqual(answer["host"], name)
            if "express" in name:
                # Its warm-up has not asked for the peer, so Node.js asks for it now.
                self.assertEqual(answer["peer"], source)

        self.ask(list(self.applications(1, "*")), [(CLIENT, CLAIMS), (PROXY, CLAIMS)], check)

    def test_the_applications_know_the_client_of_a_trusted_proxy(self):
        def check(name, _, answer):
            self.assertEqual((answer["client"], answer["scheme"]), ("192.0.2.7", "https"))
            if "uvicorn" not in name:
                self.assertEqual(answer["host"], "shop.example")

        # The proxy adds to what its client has claimed, as nginx does with $proxy_add_x_forwarded_for.
        claimed = [("X-Forwarded-For", "10.9.9.9, 10.9.9.8, 192.0.2.7")]
        said = [*claimed, ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")]
        tenants = self.applications(2, f"127.0.0.1,{PROXY}", client={"trusted_proxies": [f"{PROXY}/32"]})
        self.ask(list(tenants), [(PROXY, said)], check)


if __name__ == "__main__":
    unittest.main()
