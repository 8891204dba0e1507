# SPDX-License-Identifier: MIT OR Apache-2.0
"""Django's admin of docs/recipes.md: what is added stays, and so does the login, for all loops and over a restart.
"""

import contextlib
import http.cookies
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
from pathlib import Path

# Where the other tests find it by themselves, which discovery starts beside it.
sys.path.insert(0, str(Path(__file__).parent))

from mayfly_server import REPOSITORY, TENANTS, Connection, Server, tenant  # noqa: E402
from test_runtimes import BOOT_S, await_boot  # noqa: E402

FILE = REPOSITORY / "drogon-plugin/server/recipes.json"
RECIPES = TENANTS / "recipes"
LOOPS = 2
NAME, PASSWORD = "anna", "a long enough passphrase"
BOOKS = "/admin/library/book/"
ADD = BOOKS + "add/"
COUNT = "from library.models import Book; print(Book.objects.count())"


class Browser:
    """A session of one user: its cookies, for requests on any connection."""

    def __init__(self, host):
        self.host, self.cookies = host, {}

    def fetch(self, connection, method, path, fields=None):
        headers = [("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))]
        body = None
        if fields is not None:
            body = urllib.parse.urlencode(fields).encode()
            headers.append(("content-type", "application/x-www-form-urlencoded"))
        response = connection.fetch(method, path, body, headers, self.host)
        for name, value in response.headers:
            if name.lower() == "set-cookie":
                for cookie in http.cookies.SimpleCookie(value).values():
                    self.cookies[cookie.key] = cookie.value
        return response

    def page(self, connection, path):
        response = self.fetch(connection, "GET", path)
        assert response.status == 200, (path, response)
        return response.body.decode()

    def titles(self, connection):
        """The rows of the list of books, the latest first."""
        return re.findall(r'<th class="field-title"><a [^>]*>([^<]*)</a>', self.page(connection, BOOKS))

    def send(self, connection, path, fields):
        """Fills in the form of a page; returns where the answer leads."""
        (token, *_) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page(connection, path))
        response = self.fetch(connection, "POST", path, {"csrfmiddlewaretoken": token, **fields})
        assert response.status == 302, (path, response)
        return response.header("location")


class Admin:
    """What every mode does; `mode` is what is changed in the recipe."""

    mode = {}

    def setUp(self):
        self.data = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mayfly-django-")))
        file = json.loads(re.sub(r"^\s*//.*$", "", FILE.read_text(), flags=re.MULTILINE))
        (django,) = [tenant for tenant in file["tenants"] if tenant["name"] == "django"]
        if not (REPOSITORY / django["program"]).exists():
            raise AssertionError(f"{django['program']} is missing: run `make tenants`")
        (mount,) = django["mounts"]
        mount["host"] = str(self.data)
        django |= {"boot": "start", **self.mode}
        # Tells which loop serves a connection: each loop counts for itself.
        loops = tenant("loops", program="visits", hosts=["loops"], ephemeral=False)
        config = {"root": str(REPOSITORY), **{key: file[key] for key in ("defaults", "groups")}}
        self.server = self.enterContext(Server([django, loops], threads=LOOPS, config=config))
        self.await_boot()
        # The boot has made the tables. The operator's commands use them, beside the running server.
        self.manage("createsuperuser", "--noinput", f"--username={NAME}", "--email=anna@example.com")

    def await_boot(self):
        response = await_boot(self.server, "django")
        self.assertEqual((response.status, response.body), (200, b"Hello World!"), self.server.log()[-4000:])
        self.assertEqual(await_boot(self.server, "loops").status, 200)

    def manage(self, *arguments):
        """A command of the application, run natively with the tenant's data."""
        own = {"DATA": str(self.data), "SECRET_KEY": "of the command line", "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        command = [RECIPES / "venv/bin/python3", "-B", RECIPES / "django/manage.py", *arguments]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=BOOT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def connections(self):
        """Two connections, each to a loop of its own."""

        def visits(connection):
            return int(connection.fetch("GET", "/", host="loops").body.split()[1])

        with contextlib.ExitStack() as stack:
            opened = []
            for _ in range(20):
                connection = Connection("127.0.0.1", self.server.port, timeout=BOOT_S)
                opened.append(stack.enter_context(contextlib.closing(connection)))
                before = visits(opened[0])
                visits(connection)
                if visits(opened[0]) == before + 1:
                    yield opened[0], connection
                    return
            raise AssertionError("all connections lead to one loop")

    def log_in(self, connection):
        browser = Browser("django")
        # Without a session, each page leads to the login.
        self.assertIn("/admin/login/", browser.fetch(connection, "GET", BOOKS).header("location"))
        where = browser.send(connection, "/admin/login/?next=/admin/", {"username": NAME, "password": PASSWORD})
        self.assertEqual(where, "/admin/")
        return browser

    def add(self, browser, connection, title):
        self.assertEqual(browser.send(connection, ADD, {"title": title, "author": "Cervantes"}), BOOKS)

    def test_what_is_added_is_there_for_every_loop_and_after_a_restart(self):
        with self.connections() as (one, other):
            browser = self.log_in(one)
            self.add(browser, one, "Don Quixote")
            for connection in (other, one, other):
                self.assertEqual(browser.titles(connection), ["Don Quixote"])
            self.add(browser, other, "La Galatea")
            for connection in (one, other):
                self.assertEqual(browser.titles(connection), ["La Galatea", "Don Quixote"])
        self.server.kill()
        self.server.start()
        self.await_boot()
        with self.connections() as (one, other):
            for connection in (one, other):
                # The session is in the database, too.
                self.assertEqual(browser.titles(connection), ["La Galatea", "Don Quixote"])
            self.add(browser, other, "Persiles")
            self.assertEqual(self.log_in(one).titles(one), ["Persiles", "La Galatea", "Don Quixote"])
        self.assertEqual(self.manage("shell", "--command", COUNT).split()[-1], "3")

    def test_the_pages_style_sheets_are_served(self):
        with self.connections() as (one, _):
            page = Browser("django").page(one, "/admin/login/")
            sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
            self.assertGreater(len(sheets), 1)
            for sheet in sheets:
                response = one.fetch("GET", sheet, host="django")
                self.assertEqual((response.status, response.header("content-type")), (200, 'text/css; charset="utf-8"'))

    def count(self, connection):
        return connection.fetch("GET", "/count", host="django").json()["count"]


class Ephemeral(Admin, unittest.TestCase):
    """The recipe: each request in a fork of its own, and only the data stay."""

    def test_the_programs_memory_is_reset(self):
        with self.connections() as (one, other):
            self.assertEqual([self.count(connection) for connection in (one, other) * 3], [1] * 6)


class Kept(Admin, unittest.TestCase):
    """One process for all loops, as `runserver` is."""

    mode = {"ephemeral": False, "workers": 1}

    def test_the_programs_memory_is_one_for_all_loops(self):
        with self.connections() as (one, other):
            self.assertEqual([self.count(connection) for connection in (one, other) * 3], [1, 2, 3, 4, 5, 6])


if __name__ == "__main__":
    unittest.main()
