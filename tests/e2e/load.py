# SPDX-License-Identifier: MIT OR Apache-2.0
"""Clients that ask without a pause while a test does something to the server."""

import threading


class Load:
    """Some clients, each on a connection of its own, from entering the context to leaving it.

    `check(connection)` makes one request and returns what is wrong with the response, or None. Leaving the context
    fails if anything was wrong, or a client did not get to ask.
    """

    def __init__(self, server, check, clients=4):
        self._server, self._check = server, check
        self._stop = threading.Event()
        self._wrong, self.counts = [], [0] * clients
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]

    @property
    def count(self):
        """Requests so far."""
        return sum(self.counts)

    def _client(self, number):
        try:
            with self._server.connect() as connection:
                while not self._stop.is_set() and not self._wrong:
                    if (wrong := self._check(connection)) is not None:
                        self._wrong.append(wrong)
                    self.counts[number] += 1
        except Exception as error:
            self._wrong.append(repr(error))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert not self._wrong, self._wrong[0]
            assert all(self.counts), self.counts


def expect(path, status, body=None, host=None):
    """A check that this is what the path answers."""

    def check(connection):
        response = connection.fetch("GET", path, host=host)
        if response.status == status and (body is None or response.body == body):
            return None
        return f"{path}: {response}"

    return check
