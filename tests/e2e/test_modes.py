# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a worker keeps from one request to the next."""

import unittest

from mayfly_server import Server, tenant


def visits(name, **more):
    return tenant(name, f"/{name}", "visits", **more)


class Modes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One thread: each has a worker of its own.
        tenants = [visits("ephemeral"), visits("stateful", ephemeral=False), visits("sometimes", reset_every=3)]
        cls.server = cls.enterClassContext(Server(tenants, threads=1, config={"mode_header": True}, admin={}))
        for name in ("ephemeral", "stateful", "sometimes"):
            cls.server.await_workers(name, 1)

    def visits(self, name, count):
        return [int(self.server.get(f"/{name}").body.split()[1]) for _ in range(count)]

    def test_an_ephemeral_tenant_starts_from_its_snapshot_every_time(self):
        self.assertEqual(self.visits("ephemeral", 10), [1] * 10)

    def test_a_stateful_tenant_goes_on(self):
        (first,) = self.visits("stateful", 1)
        self.assertEqual(self.visits("stateful", 10), list(range(first + 1, first + 11)))

    def test_a_tenant_may_be_reset_now_and_then(self):
        self.assertEqual(self.visits("sometimes", 9), [1, 2, 3] * 3)

    def test_the_mode_is_in_a_header_in_the_status_and_in_the_metrics(self):
        metrics = self.server.operate("GET", "metrics").body.decode()
        for name, mode in {"ephemeral": "ephemeral", "stateful": "stateful", "sometimes": "reset-every-3"}.items():
            with self.subTest(name):
                for method in ("GET", "HEAD"):
                    response = self.server.fetch(method, f"/{name}")
                    self.assertEqual(response.header("x-mayfly-mode"), mode)
                    self.assertEqual(response.header("x-mayfly-generation"), "1")
                if name == "sometimes":
                    self.visits(name, 1)  # To the end of a round of three.
                self.assertEqual(self.server.tenant_status(name)["mode"], mode)
                engine = self.server.tenant_status(name)["engine"]
                self.assertIn(f'mayfly_tenant_info{{tenant="{name}",mode="{mode}",engine="{engine}"}} 1\n', metrics)

    def test_without_being_asked_for_the_header_is_not_there(self):
        with Server([visits("ephemeral")]) as server:
            names = {name.lower() for name, _ in server.get("/ephemeral").headers}
            self.assertFalse({name for name in names if "mayfly" in name})


if __name__ == "__main__":
    unittest.main()
