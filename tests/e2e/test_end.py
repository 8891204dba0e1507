# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end of the server: what was accepted is answered, what was not is refused, and it takes no longer than that."""

import contextlib
import json
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from mayfly_server import REPOSITORY, TIMEOUT_S, Server, free_port, tenant

CLI = REPOSITORY / "build/bin/mayfly"

# A client that is as quick as this after a connection or an answer is answered; the server closes what is still for
# longer.
QUICK_S = 0.05
# What has nothing to wait for is over before the time is up, which is 5 s, on a loaded machine, too.
PROMPT_S = 4.5
PATIENCE_S = 5
# A request that is in work while a test looks at other things: it goes by the clock, and ends before the time is up.
SLOW = "/faults/spin?3000"


def request(path, extra=""):
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{extra}\r\n".encode()


class Stream:
    """A connection whose answers are read one by one."""

    def __init__(self, connection):
        self.connection, self.received = connection, b""

    def answer(self):
        """The next answer as (status, headers, body), or None at the end of the connection."""
        while b"\r\n\r\n" not in self.received:
            if not self._more():
                assert not self.received, self.received
                return None
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.received) < length:
            assert self._more(), "half an answer"
        body, self.received = self.received[:length], self.received[length:]
        return int(first.split()[1]), headers, body

    def _more(self):
        chunk = self.connection.recv(65536)
        self.received += chunk
        return bool(chunk)


def has_come(connection):
    """Whether bytes or the end of the connection can be read."""
    return bool(select.select([connection], [], [], 0)[0])


def end(server):
    """Sends the server the signal to end; returns how long the end takes. It ends with status 0."""
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    server.await_end()
    return time.monotonic() - start


class Client(threading.Thread):
    """Asks on and on, until the server closes or refuses; `lost` has what should have been answered and was not."""

    def __init__(self, server, path, keep):
        super().__init__()
        self.server, self.path, self.keep = server, path, keep
        self.answers, self.lost, self.last = [], [], None

    def run(self):
        while self.last is None:
            # Before what the client is quick after: this thread may wait for a processor when that has come.
            since = time.monotonic()
            try:
                with self.server.socket() as connection:
                    self.converse(connection, since)
            except ConnectionRefusedError:
                self.last = "refused"

    def converse(self, connection, since):
        stream = Stream(connection)
        while True:
            was_quick = False
            try:
                began = time.monotonic()
                connection.sendall(request(self.path))
                was_quick = time.monotonic() - since < QUICK_S
                found = stream.answer()
            except ConnectionError as error:
                found = error
            if not isinstance(found, tuple):
                if was_quick:
                    self.lost.append(found)
                return
            self.answers.append(found)
            since = began
            if not self.keep or found[1].get("connection") == "close":
                return


def ended_under_load(test, server, paths):
    """Ends the server while clients send requests without end: every counted request was answered, and no quick client
    lost one.
    """
    clients = [Client(server, path, keep) for path in paths for keep in (True, False) * 3]
    for client in clients:
        client.start()
    time.sleep(0.3)
    took = end(server)
    for client in clients:
        client.join()
    answers = [answer for client in clients for answer in client.answers]
    test.assertEqual({status for status, _, _ in answers}, {200})
    counted = [int(found.group(1)) for _, _, body in answers if (found := re.fullmatch(rb"Hello (\d+) World!\n", body))]
    ran = int.from_bytes((server.directory / "counted").read_bytes()[:8], "little")
    test.assertEqual(sorted(counted), list(range(1, ran + 1)))
    test.assertEqual([client.lost for client in clients if client.lost], [])
    test.assertLess(took, PROMPT_S)


class End(unittest.TestCase):
    def test_under_load_all_that_ran_is_answered_and_all_that_was_accepted_runs(self):
        counter = tenant("counter", "/counter", shared_memory={"kib": 4, "file": "counted"})
        for _ in range(4):
            with Server([counter]) as server:
                ended_under_load(self, server, ["/counter", "/"])

    def test_idle_connections_are_closed_and_new_ones_refused_while_a_request_is_in_work(self):
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000})
        with Server([faults], admin={}) as server, contextlib.ExitStack() as connections:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            new, used, slow = (connections.enter_context(server.socket()) for _ in range(3))
            used.sendall(request("/"))
            self.assertEqual(Stream(used).answer()[0], 200)
            slow.sendall(request(SLOW))
            server.await_that(lambda: server.tenant_status("faults")["in_flight"] == 1, "the request does not begin")
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            self.assertEqual((new.recv(1), used.recv(1)), (b"", b""))
            with self.assertRaises(ConnectionRefusedError):
                server.socket()
            self.assertEqual(server.operate("GET", "ready").status, 503)
            self.assertFalse(has_come(slow), "all that before the answer")
            status, headers, _ = Stream(slow).answer()
            self.assertEqual((status, headers["connection"], slow.recv(1)), (200, "close", b""))
            server.await_end()
            self.assertLess(time.monotonic() - start, PROMPT_S)

    def test_a_server_with_nothing_in_work_ends_at_once(self):
        for clients in (0, 20):
            with Server([tenant("hello", "/hello")]) as server, contextlib.ExitStack() as connections:
                # Also clients that do not close their side.
                held = [connections.enter_context(server.socket()) for _ in range(clients)]
                for connection in held[::2]:
                    connection.sendall(request("/hello"))
                    self.assertEqual(Stream(connection).answer()[0], 200)
                self.assertLess(end(server), PROMPT_S)

    def test_interrupts_end_it_in_the_same_order(self):
        with Server([tenant("hello", "/hello")]) as server, server.socket() as idle:
            server.signal(signal.SIGINT)
            self.assertEqual(idle.recv(1), b"")
            server.await_end()

    def test_pipelined_requests_in_work_are_all_answered_and_the_last_one_asks_to_close(self):
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000})
        with Server([faults], admin={}) as server, server.socket() as connection:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            # The second is done before the first; the third is the application's own.
            connection.sendall(request("/faults/spin?1500") + request("/faults/spin?100") + request("/"))
            server.await_that(lambda: server.tenant_status("faults")["requests"] >= 2, "the requests do not begin")
            server.signal(signal.SIGTERM)
            stream = Stream(connection)
            self.assertEqual([stream.answer()[0] for _ in range(3)], [200, 200, 200])
            self.assertIsNone(stream.answer())
            server.await_end()

    def test_a_request_that_comes_behind_the_last_answer_is_not_run(self):
        counter = tenant("counter", "/counter", shared_memory={"kib": 4, "file": "counted"})
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000})
        with Server([counter, faults], admin={}) as server, contextlib.ExitStack() as connections:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            slow, pipelining = (connections.enter_context(server.socket()) for _ in range(2))
            half = request("/counter")
            pipelining.sendall(half[:10])
            slow.sendall(request(SLOW))
            server.await_that(lambda: server.tenant_status("faults")["in_flight"] == 1, "the request does not begin")
            server.signal(signal.SIGTERM)
            server.await_log("shutdown begins")
            # The half that came before is waited for, and what comes in one piece with it is closed behind the answer.
            pipelining.sendall(half[10:] + request("/counter") * 5)
            stream = Stream(pipelining)
            answers = []
            with contextlib.suppress(ConnectionError):
                while (found := stream.answer()) is not None:
                    answers.append(found)
            self.assertEqual(answers[-1][1]["connection"], "close")
            self.assertEqual(Stream(slow).answer()[0], 200)
            server.await_end()
            ran = int.from_bytes((server.directory / "counted").read_bytes()[:8], "little")
            self.assertEqual(len(answers), ran)

    def test_half_a_request_has_until_the_time_is_up_and_is_closed_then(self):
        heads = [b"GET /hel", b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345"]
        with Server([tenant("hello", "/hello")]) as server, contextlib.ExitStack() as connections:
            clients = [connections.enter_context(server.socket()) for _ in heads]
            for client, head in zip(clients, heads):
                client.sendall(head)
            with server.socket() as rest:
                rest.sendall(b"GET /hello HT")
                time.sleep(0.2)
                start = time.monotonic()
                server.signal(signal.SIGTERM)
                time.sleep(0.5)
                rest.sendall(b"TP/1.1\r\nhost: x\r\n\r\n")
                status, headers, _ = Stream(rest).answer()
                self.assertEqual((status, headers["connection"]), (200, "close"))
            self.assertEqual([client.recv(1) for client in clients], [b"", b""])
            server.await_end()
            self.assertGreater(time.monotonic() - start, PATIENCE_S - 0.5)

    def test_a_request_that_takes_longer_than_the_server_waits_is_answered_with_503(self):
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000, "wall_ms": 60_000})
        with Server([faults], admin={}) as server, server.socket() as connection:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            connection.sendall(request("/faults/spin?15000"))
            server.await_that(lambda: server.tenant_status("faults")["in_flight"] == 1, "the request does not begin")
            server.signal(signal.SIGTERM)
            status, headers, body = Stream(connection).answer()
            self.assertEqual((status, headers["connection"]), (503, "close"), body)
            server.await_end()

    def test_a_second_signal_ends_the_wait(self):
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000, "wall_ms": 60_000})
        with Server([faults], admin={}) as server, server.socket() as connection:
            self.assertEqual(server.await_boot("/faults/ok").status, 200)
            connection.sendall(b"GET /hel")  # Would be waited for.
            time.sleep(0.2)
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            server.await_log("shutdown begins")
            time.sleep(0.2)
            server.signal(signal.SIGTERM)
            server.await_end()
            self.assertLess(time.monotonic() - start, PROMPT_S)

    def test_large_answers_are_sent_whole_to_slow_clients(self):
        with Server([tenant("hello", "/hello")], app={"document_root": "files"}) as server, contextlib.ExitStack() as stack:
            (server.directory / "files").mkdir(exist_ok=True)  # Drogon may have made it.
            (server.directory / "files/large.txt").write_bytes(b"x" * (32 << 20))
            slow = stack.enter_context(server.socket())
            slow.sendall(request("/large.txt"))
            first = slow.recv(4096)
            server.signal(signal.SIGTERM)
            time.sleep(0.5)
            size = len(first) + sum(len(chunk) for chunk in iter(lambda: slow.recv(1 << 20), b""))
            self.assertGreater(size, 32 << 20)
            server.await_end()


class Command:
    """`mayfly run` with these tenants, as a server that gets the signal to end."""

    def __init__(self, tenants):
        self.tenants, self.port = tenants, free_port()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mayfly-e2e-")))
            config = self.directory / "tenants.json"
            config.write_text(json.dumps({"tenants": self.tenants}))
            command = [CLI, "run", "--config", config, "--listen", f"127.0.0.1:{self.port}", "--threads", "2"]
            log = stack.enter_context(open(self.directory / "log", "wb"))
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            stack.callback(self.process.wait)
            stack.callback(self.process.kill)
            self.await_log("answers on")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)

    def signal(self, number):
        self.process.send_signal(number)

    def await_log(self, words):
        deadline = time.monotonic() + TIMEOUT_S
        while words not in (log := (self.directory / "log").read_text()):
            assert time.monotonic() < deadline and self.process.poll() is None, log
            time.sleep(0.01)

    def await_end(self):
        assert self.process.wait(TIMEOUT_S) == 0, (self.directory / "log").read_text()


class EndOfTheCommand(unittest.TestCase):
    def test_under_load_all_that_ran_is_answered_and_all_that_was_accepted_runs(self):
        counter = tenant("counter", "/counter", shared_memory={"kib": 4, "file": "counted"})
        for _ in range(3):
            with Command([counter]) as server:
                ended_under_load(self, server, ["/counter"])

    def test_idle_connections_are_closed_while_a_request_is_in_work(self):
        faults = tenant("faults", "/faults", limits={"inline_budget_us": 100, "cpu_ms": 20_000})
        with Command([faults]) as server, contextlib.ExitStack() as connections:
            idle, slow = (connections.enter_context(server.socket()) for _ in range(2))
            slow.sendall(request("/faults/ok"))
            self.assertEqual(Stream(slow).answer()[0], 200)
            slow.sendall(request(SLOW))
            time.sleep(0.3)
            server.signal(signal.SIGTERM)
            self.assertEqual(idle.recv(1), b"")
            self.assertFalse(has_come(slow), "before the answer")
            with self.assertRaises(ConnectionRefusedError):
                server.socket()
            status, headers, _ = Stream(slow).answer()
            self.assertEqual((status, headers["connection"], slow.recv(1)), (200, "close", b""))
            server.await_end()

    def test_a_second_signal_ends_the_wait_and_one_with_nothing_in_work_needs_none(self):
        with Command([tenant("hello", "/hello")]) as server:
            self.assertLess(end(server), PROMPT_S)
        with Command([tenant("hello", "/hello")]) as server, server.socket() as half:
            half.sendall(b"GET /hel")
            time.sleep(0.2)
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            server.await_log("shutdown begins")
            time.sleep(0.3)
            server.signal(signal.SIGINT)
            server.await_end()
            self.assertLess(time.monotonic() - start, PROMPT_S)


if __name__ == "__main__":
    unittest.main()
