# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which tenant has a request, by its host and its path, and what stays Drogon's."""

import unittest

from mayfly_server import Server, tenant

VANILLA = b"\tthis is a very"
ROUTE = "/_mayfly/tenant"  # The plugin's own in Drogon.


def named(name, **where):
    """A tenant that says its name, whatever it is asked."""
    return tenant(name, program="echo", args=[name], env={}, **where)


TENANTS = [
    named("exact", hosts=["shop.example", "127.0.0.1"]),
    named("suffix", hosts=["*.example"]),
    named("long-suffix", hosts=["*.shop.example"], paths=["/a", "/b"]),
    named("by-path", path="/path"),
    named("both", hosts=["both.example"], path="/path/deep"),
]


class Routed(unittest.TestCase):
    """Tells tenants apart by their counts."""

    def tenant_of(self, path, host, method="GET"):
        """The name of the tenant that got the request, or the status of another answer."""
        before = self.counts()
        response = self.server.fetch(method, path, host=host)
        after = self.counts()
        (had,) = [name for name in after if after[name] != before[name]] or [None]
        if had is None:
            return VANILLA if response.body.startswith(VANILLA) else response.status
        self.assertEqual(response.status, 200, response.body)
        if method != "HEAD":
            self.assertEqual(response.json()["path"], path)
        return had

    def counts(self):
        return {tenant["name"]: tenant["requests"] for tenant in self.server.status()["tenants"]}

    def check(self, expected):
        for (host, path), tenant in expected.items():
            with self.subTest(host=host, path=path):
                self.assertEqual(self.tenant_of(path, host), tenant)


class Hosts(Routed):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(TENANTS, admin={}))

    def test_the_most_specific_host_that_has_the_path_wins(self):
        self.check({
            ("shop.example", "/"): "exact",
            ("shop.example", "/any/where"): "exact",
            ("SHOP.Example", "/"): "exact",
            ("shop.example:8080", "/"): "exact",
            ("shop.example.", "/"): "exact",
            ("127.0.0.1:1", "/"): "exact",
            ("www.example", "/"): "suffix",
            ("a.b.example", "/"): "suffix",
            ("x.shop.example", "/a"): "long-suffix",
            ("x.shop.example", "/b/c"): "long-suffix",
            ("x.shop.example", "/c"): "suffix",
            ("both.example", "/path/deep"): "both",
            ("both.example", "/path"): "suffix",
            ("unknown.test", "/path/deep"): "by-path",
            ("", "/path"): "by-path",
        })

    def test_what_no_tenant_claims_is_drogons(self):
        self.check({
            ("unknown.test", "/"): VANILLA,
            ("example", "/"): VANILLA,
            ("shop.example.test", "/"): VANILLA,
            ("shop.example:port", "/"): 400,
            ("", "/"): VANILLA,
            ("unknown.test", "/nowhere"): 404,
            ("unknown.test", "/pathology"): 404,
        })
        # Drogon's own page, not an answer of Mayfly's.
        self.assertNotEqual(self.server.get("/nowhere", host="unknown.test").header("content-type"), "application/json")

    def test_a_request_of_http_1_0_needs_no_host(self):
        answer = self.server.raw(b"GET /path HTTP/1.0\r\n\r\n")
        self.assertIn(b'"path":"/path"', answer)

    def test_a_host_of_any_bytes_and_length_is_just_another_one(self):
        for host in (b"\xff\xfe", b"x" * 5000, b".", b"[", b"..example", b"a" * 300 + b".example"):
            with self.subTest(host[:10]):
                answer = self.server.raw(b"GET / HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n")
                self.assertRegex(answer, rb"^HTTP/1.1 (200|400) ")

    def test_head_and_options_are_the_tenants(self):
        for path in ("/", "/x"):
            self.assertEqual(self.tenant_of(path, "shop.example", "HEAD"), "exact")
            self.assertEqual(self.tenant_of(path, "shop.example", "OPTIONS"), "exact")

    def test_the_plugins_own_route_is_nobodys(self):
        for path in (ROUTE, ROUTE.upper(), "/%5fmayfly/tenant", ROUTE + "?x"):
            with self.subTest(path):
                self.assertEqual(self.tenant_of(path, "unknown.test"), 404)
        # Unless a tenant claims it.
        self.assertEqual(self.tenant_of(ROUTE, "shop.example"), "exact")

    def test_one_connection_may_ask_for_many_hosts(self):
        with self.server.connect() as connection:
            for _ in range(20):
                self.assertEqual(connection.fetch("GET", "/a", host="shop.example").json()["path"], "/a")
                self.assertEqual(connection.fetch("GET", "/path", host="x").json()["path"], "/path")
                self.assertTrue(connection.fetch("GET", "/", host="x").body.startswith(VANILLA))
                self.assertEqual(connection.fetch("GET", ROUTE, host="x").status, 404)


class DefaultTenant(Routed):
    @classmethod
    def setUpClass(cls):
        tenants = [named("default", default=True), named("by-path", path="/path"), named("by-host", hosts=["shop.example"])]
        cls.server = cls.enterClassContext(Server(tenants, admin={}))
        (cls.server.directory / "public").mkdir(exist_ok=True)
        (cls.server.directory / "public/file.txt").write_text("of Drogon's")

    def test_it_has_what_is_nobodys(self):
        self.check({
            ("unknown.test", "/nowhere"): "default",
            ("unknown.test", "/no/%41where"): "default",
            ("", "/index.html"): "default",
            ("unknown.test", ROUTE): "default",
            ("shop.example", "/nowhere"): "by-host",
            ("unknown.test", "/path/x"): "by-path",
        })

    def test_the_applications_routes_and_files_are_not_its(self):
        self.assertEqual(self.tenant_of("/", "unknown.test"), VANILLA)
        self.assertEqual(self.server.get("/file.txt").body, b"of Drogon's")

    def test_it_has_every_method(self):
        for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            with self.subTest(method):
                self.assertEqual(self.tenant_of("/nowhere", "unknown.test", method), "default")


if __name__ == "__main__":
    unittest.main()
