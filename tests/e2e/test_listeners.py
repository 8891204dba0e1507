# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that listen in several places: clients reach the port that the tenant names, and no other."""

import re
import unittest

from mayfly_server import REPOSITORY, Server, tenant
from test_runtimes import HELLO, await_boot, tenants_file

DOORS = ["listen=127.0.0.1:2019", "later=30,[::]:8080", "tick=20", "listen=/run/it"]


class Doors(unittest.TestCase):
    """A program that opens its application's listener last."""

    def test_clients_reach_the_named_port_and_no_other(self):
        def doors(name, **more):
            return tenant(name, program="doors", hosts=[name], serve="connections", args=DOORS, **more)

        tenants = [
            doors("site", port=8080),
            doors("kept", port=8080, ephemeral=False),
            doors("admin", port=2019),
            doors("none"),
            doors("other", port=80, limits={"boot_ms": 2000}),
        ]
        with Server(tenants, threads=2) as server:
            for host, who in [("site", b"2 [::]:8080 "), ("kept", b"2 [::]:8080 "), ("admin", b"0 127.0.0.1:2019 ")]:
                self.assertEqual(await_boot(server, host).body, b"Hello World!", server.log()[-3000:])
                with server.connect() as connection:
                    for _ in range(20):
                        response = connection.fetch("GET", "/who", host=host)
                        self.assertEqual(response.status, 200)
                        self.assertTrue(response.body.startswith(who), response.body)
            listed = "127.0.0.1:2019, then unix:/run/it, then [::]:8080"
            for host, rest in [("none", ': set "port"'), ("other", ", and not on port 80, ")]:
                response = await_boot(server, host)
                self.assertEqual(response.status, 503)
                self.assertIn(f"the program listens on {listed}{rest}", response.json()["reason"])


class Inspected(unittest.TestCase):
    """Node.js with its debugger, which listens before the application does."""

    def test_clients_do_not_reach_the_debugger_of_node(self):
        file = tenants_file()
        node = next(tenant for tenant in file["tenants"] if tenant["name"] == "node")
        node["args"] = ["--inspect", *node["args"]]
        unnamed = {key: value for key, value in node.items() if key != "port"}
        tenants = [
            {**node, "boot": "start"},
            {**node, "name": "node-kept", "hosts": ["node-kept"], "ephemeral": False, "boot": "start"},
            # The debugger answers by this name only. It is there: it is what is asked for.
            {**node, "name": "debugger", "hosts": ["localhost"], "port": 9229, "warm_up": [], "boot": "start"},
            {**unnamed, "name": "unnamed", "hosts": ["unnamed"], "boot": "start"},
        ]
        config = {"root": str(REPOSITORY), **{key: file[key] for key in ("defaults", "groups")}}
        with Server(tenants, threads=2, config=config) as server:
            for host in ("node", "node-kept"):
                self.assertEqual(await_boot(server, host).body, HELLO, server.log()[-4000:])
                with server.connect() as connection:
                    for path in ("/json/list", "/json/version", "/"):
                        for _ in range(5):
                            response = connection.fetch("GET", path, host=host)
                            self.assertEqual((response.status, response.body), (200, HELLO), path)
            await_boot(server, "localhost")
            with server.connect() as connection:
                response = connection.fetch("GET", "/json/version", host="localhost")
                self.assertIn("Protocol-Version", response.json(), server.log()[-4000:])
            response = await_boot(server, "unnamed")
            self.assertEqual(response.status, 503)
            reason = response.json()["reason"]
            self.assertIsNotNone(re.search(r"listens on 127\.0\.0\.1:9229, then 127\.0\.0\.1:8000: ", reason), reason)
            self.assertIn('"port"', reason)


if __name__ == "__main__":
    unittest.main()
