# SPDX-License-Identifier: MIT OR Apache-2.0
"""The SDK and the hooks under other versions of their runtimes than the samples' (tenants/versions; docs/guest-sdk.md).

Each serves as an unmodified server and by the SDK, as its runtime's tenants of runtimes.json; one that is too old says
so.
"""

import copy
import sys
import unittest
from pathlib import Path

# Where the other tests find it by themselves, which discovery starts beside it.
sys.path.insert(0, str(Path(__file__).parent))

from mayfly_server import REPOSITORY, Server  # noqa: E402
from test_runtimes import HELLO, Client, await_boot, tenants_file  # noqa: E402

VERSIONS = "build/tenants/versions"


def version_of_npm(name):
    return {"program": f"{VERSIONS}/bin/{name}", "mounts": [{"host": f"{VERSIONS}/bin", "at": "/app/bin"}]}


def tenants(runtime, version, modes=("", "-sdk")):
    """The runtime's tenants of runtimes.json, with another program."""
    return [
        {**copy.deepcopy(tenant), "env": {**tenant.get("env", {}), **version.get("env", {})}, "program": version["program"]}
        | {"mounts": version["mounts"], "boot": "start"}
        for tenant in tenants_file()["tenants"]
        if tenant["name"] in {runtime + mode for mode in modes}
    ]


def server(of):
    program = REPOSITORY / of[0]["program"]
    if not program.exists():
        raise AssertionError(f"{program} is missing: run `make tenants`")
    config = {"root": str(REPOSITORY), **{key: tenants_file()[key] for key in ("defaults", "groups")}}
    return Server(of, threads=1, config=config)


class Supported(unittest.TestCase):
    def serves(self, runtime, version):
        with server(tenants(runtime, version)) as running:
            for host in (runtime, f"{runtime}-sdk"):
                with self.subTest(host):
                    response = await_boot(running, host)
                    self.assertEqual((response.status, response.body), (200, HELLO), running.log()[-4000:])
                    with running.connect() as connection:
                        client = Client(connection, host)
                        pages = [client.json("/random") for _ in range(10)]
                        self.assertEqual({client.json("/count")["count"] for _ in range(3)}, {1})
                        self.assertEqual(client.json("/echo", "POST", b"a body")["body"], "a body")
                    for key in ("random", "uuid"):
                        self.assertEqual(len({page[key] for page in pages}), len(pages), key)

    def test_node_18(self):
        self.serves("node", version_of_npm("node-18"))

    def test_node_22(self):
        self.serves("node", version_of_npm("node-22"))

    def test_node_24(self):
        self.serves("node", version_of_npm("node-24"))

    def test_node_26(self):
        self.serves("node", version_of_npm("node-26"))

    def test_the_node_of_debian_12(self):
        """Its OpenSSL is a library beside it, and at its start it reads modules in /usr/share/nodejs."""
        debian = f"{VERSIONS}/debian-node"
        self.serves(
            "node",
            {
                "program": f"{debian}/bin/node",
                "env": {"LD_LIBRARY_PATH": "/app/debian/lib"},
                "mounts": [
                    {"host": debian, "at": "/app/debian"},
                    {"host": f"{debian}/share/nodejs", "at": "/usr/share/nodejs"},
                ],
            },
        )

    def test_deno_2_8(self):
        self.serves("deno", version_of_npm("deno-2.8"))

    def test_the_python_of_debian_13(self):
        """On a C library of its own: nothing of the host's is there."""
        root = f"{VERSIONS}/debian-13"
        places = {"/lib": "usr/lib", "/lib64": "usr/lib64", "/usr/lib": "usr/lib", "/usr/bin": "usr/bin"}
        self.serves(
            "python",
            {
                "program": f"{root}/usr/bin/python3.13",
                "mounts": [{"host": f"{root}/{path}", "at": place} for place, path in places.items()],
            },
        )


class Refused(unittest.TestCase):
    def says(self, runtime, version, modes, message):
        of = tenants(runtime, version, modes)
        with server(of) as running:
            for tenant in of:
                with self.subTest(tenant["name"]):
                    response = await_boot(running, tenant["hosts"][0])
                    self.assertEqual(response.status, 503)
                    self.assertRegex(response.json()["reason"], "exited with status 1|the program exited")
                    running.await_log(f"{message}.*tenant={tenant['name']}")

    def test_node_16(self):
        """As a server it does not know the option by which it would load the hook, and says so itself."""
        message = r"Mayfly's SDK and hook for Node\.js need Node\.js 18 or newer; this is 16\.20\.2"
        self.says("node", version_of_npm("node-16"), ["-sdk"], message)

    def test_deno_2_7(self):
        message = r"Mayfly's SDK and hook for Deno need Deno 2\.8\.3 or newer; this is 2\.7\.14"
        self.says("deno", version_of_npm("deno-2.7"), ["", "-sdk"], message)


if __name__ == "__main__":
    unittest.main()
