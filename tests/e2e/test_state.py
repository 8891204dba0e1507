# SPDX-License-Identifier: MIT OR Apache-2.0
"""State that outlives a request: shared memory, a storage program."""

import concurrent.futures
import re
import unittest

from mayfly_server import Server, digest, program_path, tenant

KEY = "operator"
THREADS = 3
CLIENTS = 6


def numbers(server, each):
    """Asks the counter from many connections at once: the numbers that came."""

    def client(_):
        with server.connect() as connection:
            answers = [connection.fetch("GET", "/counter") for _ in range(each)]
        assert all(answer.status == 200 for answer in answers), answers
        return [int(re.fullmatch(rb"Hello (\d+) World!\n", answer.body).group(1)) for answer in answers]

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        return [number for found in clients.map(client, range(CLIENTS)) for number in found]


class Counter(unittest.TestCase):
    def test_it_counts_every_request_once_over_all_threads_and_reloads(self):
        counter = tenant("counter", "/counter", shared_memory={"kib": 4})
        with Server([counter], threads=THREADS, admin={"key_sha256": digest(KEY)}) as server:
            self.assertEqual(sorted(numbers(server, 200)), list(range(1, CLIENTS * 200 + 1)))
            with concurrent.futures.ThreadPoolExecutor(1) as reloads:
                reloading = reloads.submit(self.reload, server, 100)
                found = []
                while not reloading.done():
                    found += numbers(server, 5)
                reloading.result()
            first = CLIENTS * 200 + 1
            self.assertEqual(sorted(found), list(range(first, first + len(found))))
            self.assertEqual(server.tenant_status("counter", KEY)["generation"], 101)

    def reload(self, server, times):
        for _ in range(times):
            answer = server.operate("POST", "tenants/counter/reload", key=KEY)
            self.assertEqual(answer.status, 200, answer.body)

    def test_a_file_keeps_the_count_over_a_crash(self):
        counter = tenant("counter", "/counter", shared_memory={"kib": 4, "file": "counted"})
        with Server([counter], threads=THREADS) as server:
            for start in (1, 301, 601):
                self.assertEqual(sorted(numbers(server, 50)), list(range(start, start + 300)))
                server.kill()
                server.start()
            self.assertEqual((server.directory / "counted").stat().st_mode & 0o777, 0o600)

    def test_two_tenants_do_not_share(self):
        tenants = [tenant(name, f"/{name}", "counter", shared_memory={"kib": 4}) for name in ("one", "two")]
        with Server(tenants) as server:
            for count in (1, 2, 3):
                for name in ("one", "two"):
                    self.assertEqual(server.get(f"/{name}").body, b"Hello %d World!\n" % count)


class Notes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        notes = tenant("notes", "/notes", storage={"program": program_path("store"), "call_ms": 10000})
        cls.server = cls.enterClassContext(Server([notes], threads=THREADS, admin={}))

    def test_what_one_request_puts_another_gets(self):
        value = bytes(range(256)) * 8
        self.assertEqual(self.server.get("/notes/a").status, 404)
        self.assertEqual(self.server.fetch("PUT", "/notes/a", value).status, 201)
        for _ in range(2 * THREADS):  # Whatever thread, whatever worker.
            self.assertEqual(self.server.get("/notes/a").body, value)
        self.assertEqual(self.server.fetch("PUT", "/notes/a", b"").status, 204)
        self.assertEqual(self.server.get("/notes/a").body, b"")
        self.assertEqual(self.server.fetch("DELETE", "/notes/a").status, 204)
        self.assertEqual(self.server.get("/notes/a").status, 404)
        self.assertGreater(self.server.tenant_status("notes")["store_calls"], 0)

    def test_clients_side_by_side_lose_nothing(self):
        def client(number):
            with self.server.connect() as connection:
                for i in range(20):
                    key, value = f"/notes/{number}-{i % 3}", f"{number} {i}".encode()
                    put = connection.fetch("PUT", key, value)
                    got = connection.fetch("GET", key)
                    if put.status not in (201, 204) or (got.status, got.body) != (200, value):
                        return f"{key}: {put} {got}"
            return None

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
            self.assertEqual([wrong for wrong in clients.map(client, range(CLIENTS)) if wrong], [])


if __name__ == "__main__":
    unittest.main()
