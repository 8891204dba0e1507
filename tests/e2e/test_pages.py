# SPDX-License-Identifier: MIT OR Apache-2.0
"""The sample tenants, side by side with the page that Drogon answers by itself."""

import re
import unittest

from mayfly_server import Server, sample_server, tenant

PAGE = b"\tthis is a very\n\tlong string if I had the\n\tenergy to type more and more ...\n"


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(
            Server([tenant("pythran", "/z"), tenant("hello", "/hello"), tenant("echo", "/echo")])
        )

    def test_the_vanilla_route_answers_the_page(self):
        response = self.server.get("/")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, PAGE)

    def test_the_sandboxed_page_is_the_same_to_the_byte(self):
        vanilla, sandboxed = self.server.get("/"), self.server.get("/z")
        self.assertEqual(sandboxed.status, 200)
        self.assertEqual(sandboxed.body, vanilla.body)

    def test_both_pages_have_the_same_headers_in_the_same_order(self):
        def headers(path):
            return [(name, None if name == "date" else value) for name, value in self.server.get(path).headers]

        self.assertEqual(headers("/z"), headers("/"))
        self.assertEqual(self.server.get("/z").header("content-type"), "text/plain")

    def test_hello_says_hello(self):
        response = self.server.get("/hello")
        self.assertEqual((response.status, response.body), (200, b"Hello World!"))
        self.assertEqual(response.header("content-type"), "text/plain")

    def test_a_program_prints_under_its_tenants_name(self):
        line = self.server.await_log(r".*Hello from Python.*").group()
        self.assertIn("pythran", line)

    def test_a_program_is_initialised_once(self):
        for _ in range(10):
            self.server.get("/z")
        self.assertEqual(len(re.findall("Hello from Python", self.server.log())), 1)

    def test_head_has_the_headers_of_get_and_no_body(self):
        for path in ("/", "/z", "/hello"):
            with self.subTest(path):
                get, head = self.server.get(path), self.server.fetch("HEAD", path)
                self.assertEqual(head.status, 200)
                self.assertEqual(head.body, b"")
                self.assertEqual(head.header("content-length"), get.header("content-length"))

    def test_the_sample_configuration_has_these_routes(self):
        with sample_server() as server:
            self.assertEqual(server.get("/").body, PAGE)
            self.assertEqual(server.get("/z").body, PAGE)
            self.assertEqual(server.get("/hello").body, b"Hello World!")
            self.assertEqual(server.get("/echo").json()["path"], "/echo")
            self.assertRegex(server.get("/counter").body, rb"^Hello [0-9]+ World!\n$")
            self.assertEqual(server.fetch("PUT", "/notes/a", b"text").status, 201)
            self.assertEqual(server.get("/notes/a").body, b"text")
            self.assertEqual(server.get("/", host="test.com").body, b"visit 1\n")
            for _ in range(2):
                self.assertEqual(server.get("/", host="fresh.test.com").body, b"visit 1\n")
            self.assertEqual(server.get("/", host="a.spin.test.com").body, b"Hello World!")


if __name__ == "__main__":
    unittest.main()
