# SPDX-License-Identifier: MIT OR Apache-2.0
"""The configurations of docs/recipes.md, as they stand in recipes.json: frameworks' applications and nginx, unmodified.
"""

import contextlib
import gzip
import json
import re
import sys
import unittest
from pathlib import Path

# Where the other tests find it by themselves, which discovery starts beside it.
sys.path.insert(0, str(Path(__file__).parent))

from mayfly_server import REPOSITORY, Server  # noqa: E402
from test_runtimes import Client, await_boot  # noqa: E402

FILE = REPOSITORY / "drogon-plugin/server/recipes.json"
HELLO = b"Hello World!"


class Recipes(unittest.TestCase):
    """One server for all tenants, each of which boots when the first test calls it. The class itself has no tests."""

    def __init_subclass__(cls, host=None, **more):
        super().__init_subclass__(**more)
        cls.host = host

    @classmethod
    def setUpClass(cls):
        file = json.loads(re.sub(r"^\s*//.*$", "", FILE.read_text(), flags=re.MULTILINE))
        tenants = [tenant for tenant in file["tenants"] if tenant["name"] == cls.host]
        if not (REPOSITORY / tenants[0]["program"]).exists():
            raise AssertionError(f"{tenants[0]['program']} is missing: install it, or run `make tenants`")
        config = {"root": str(REPOSITORY), **{key: file[key] for key in ("defaults", "groups")}}
        cls.server = cls.enterClassContext(Server(tenants, threads=2, config=config))
        response = await_boot(cls.server, cls.host)
        if (response.status, response.body) != (200, HELLO):
            raise AssertionError(f"{cls.host}: {response}\n{cls.server.log()[-4000:]}")

    @contextlib.contextmanager
    def connected(self):
        with self.server.connect() as connection:
            yield Client(connection, self.host)

    def test_it_says_hello_over_one_connection_many_times(self):
        with self.connected() as client:
            for _ in range(30):
                response = client.get("/?x=1")
                self.assertEqual((response.status, response.body), (200, HELLO))
                self.assertRegex(response.header("content-type"), "^text/")


class Application:
    """What all frameworks' applications do."""

    def test_every_request_starts_from_the_same_state(self):
        with self.connected() as client:
            self.assertEqual({client.json("/count")["count"] for _ in range(10)}, {1})

    def test_random_numbers_are_fresh(self):
        with self.connected() as client:
            pages = [client.json("/random") for _ in range(10)]
        for key in ("random", "uuid"):
            self.assertEqual(len({page[key] for page in pages}), len(pages), key)

    def test_a_body_arrives(self):
        body = {"text": "h\u00e4llo " * 500, "list": [1, 2, {"three": None}]}
        with self.connected() as client:
            for _ in range(3):
                sent = json.dumps(body).encode()
                self.assertEqual(client.json("/echo", "POST", sent, [("content-type", "application/json")]), body)

    def test_it_may_wait(self):
        with self.connected() as client:
            for _ in range(3):
                response = client.get("/slow")
                self.assertEqual((response.status, response.body), (200, b"slow"))

    def test_an_error_is_the_frameworks_own_page(self):
        with self.connected() as client:
            for _ in range(3):
                self.assertEqual(client.get("/fails").status, 500)
                self.assertEqual(client.get("/none").status, 404)
                self.assertEqual(client.json("/count")["count"], 1)


class Express(Application, Recipes, host="express"):
    def test_files_are_served(self):
        with self.connected() as client:
            page = client.get("/static/index.html")
            self.assertEqual((page.status, page.body), (200, HELLO))
            same = client.fetch("GET", "/static/index.html", headers=[("if-none-match", page.header("etag"))])
            self.assertEqual((same.status, same.body), (304, b""))


class Fastify(Application, Recipes, host="fastify"):
    pass


class Flask(Application, Recipes, host="flask"):
    """Under waitress, on threads."""


class FastApi(Application, Recipes, host="fastapi"):
    """Under uvicorn, on an event loop and threads."""

    def test_wrong_input_is_refused(self):
        with self.connected() as client:
            response = client.fetch("POST", "/echo", b"{", [("content-type", "application/json")])
            self.assertEqual(response.status, 422)
            self.assertEqual(client.get("/openapi.json").status, 200)


class Nginx(Recipes, host="nginx"):
    def test_it_compresses_and_serves_parts(self):
        with self.connected() as client:
            for _ in range(3):
                page = client.fetch("GET", "/", headers=[("accept-encoding", "gzip")])
                self.assertEqual((page.header("content-encoding"), gzip.decompress(page.body)), ("gzip", HELLO))
                part = client.fetch("GET", "/", headers=[("range", "bytes=6-10")])
                self.assertEqual((part.status, part.body), (206, b"World"))
                self.assertEqual(client.get("/none").status, 404)

    def test_its_request_ids_differ(self):
        with self.connected() as client:
            self.assertEqual(len({client.json("/random")["id"] for _ in range(10)}), 10)


# It is there to be inherited from.
del Recipes

if __name__ == "__main__":
    unittest.main()
