# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests the sample tenants natively, linked with the fake host, and the real ones outside Mayfly."""

import base64
import errno
import json
import os
import struct
import subprocess
import unittest

from tenant import Answer, Request, run

OUT = os.environ["OUT"]
SAMPLES = ("hello", "echo", "pythran", "counter", "visits", "store", "notes", "spin", "faults")
PAGE = b"\tthis is a very\n\tlong string if I had the\n\tenergy to type more and more ...\n"


def faked(name: str) -> str:
    return f"{OUT}/test/{name}"


def built(name: str) -> str:
    return f"{OUT}/{name}/{name}"


class Sdk(unittest.TestCase):
    def test_the_header(self):
        result = subprocess.run([f"{OUT}/test/sdk_test"], capture_output=True, text=True, timeout=30)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class Hello(unittest.TestCase):
    def test_one_request_is_one_doorbell(self):
        result = run(faked("hello"), [Request()] * 5)
        self.assertEqual([r.doorbells for r in result.responses], [2, 3, 4, 5, 6])
        for response in result.responses:
            self.assertEqual((response.status, response.body), (200, b"Hello World!"))
            self.assertEqual(response.headers, [(b"content-type", b"text/plain")])


class Echo(unittest.TestCase):
    def echo(self, request: Request) -> dict:
        (response,) = run(faked("echo"), [request]).responses
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers, [(b"content-type", b"application/json")])
        return json.loads(response.body)

    def test_every_part_comes_back(self):
        headers = [("host", "localhost"), ("accept", "a"), ("accept", "b"), ("x-empty", "")]
        entropy = bytes(range(32))
        answer = self.echo(
            Request("/echo/%20", "PUT", "a=b&c", b"body", headers, 2**64 - 1, 1795300530069289097, 1, entropy)
        )
        self.assertEqual(
            answer,
            {
                "abi": 1,
                "id": 2**64 - 1,
                "unix_ns": 1795300530069289097,
                "monotonic_ns": 1,
                "entropy": entropy.hex(),
                "method": "PUT",
                "path": "/echo/%20",
                "query": "a=b&c",
                "headers": [{"name": name, "value": value} for name, value in headers],
                "body": "body",
            },
        )

    def test_text_is_escaped(self):
        text = "".join(map(chr, range(0x80))) + '"\\/ \u00e4\u20ac\ud7ff\ue000\uffff\U00010000\U0010ffff'
        self.assertEqual(self.echo(Request(body=text.encode()))["body"], text)

    def test_what_is_not_utf8_comes_as_base64(self):
        bad = [
            b"\xff", b"\xc3", b"\xc3(", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80", b"a\xe2\x82", b"\xe2\x82(", b"\xf0\x9f\x98(", bytes(range(256)),
        ]  # fmt: skip
        for body in bad:
            with self.subTest(body=body):
                answer = self.echo(Request(body=body))
                self.assertNotIn("body", answer)
                self.assertEqual(base64.b64decode(answer["body_base64"], validate=True), body)

    def test_bytes_anywhere_are_survived(self):
        answer = self.echo(Request(path=b"/\xff", query=b"\xfe", headers=[("x", b"\xfd")]))
        self.assertEqual(base64.b64decode(answer["path_base64"]), b"/\xff")
        self.assertEqual(base64.b64decode(answer["query_base64"]), b"\xfe")
        self.assertEqual(base64.b64decode(answer["headers"][0]["value_base64"]), b"\xfd")

    def test_what_does_not_fit_is_said_and_forgotten(self):
        large = Request(body=b"\x01" * (300 << 10))  # Six times as long when escaped; the fake limit is 1 MiB.
        result = run(faked("echo"), [large, Request()])
        self.assertEqual([r.status for r in result.responses], [500, 200])
        fits = run(faked("echo"), [Request(body=b"a" * (900 << 10))]).responses
        self.assertEqual(len(json.loads(fits[0].body)["body"]), 900 << 10)


class Pythran(unittest.TestCase):
    def test_the_page_is_pythons_own(self):
        result = run(faked("pythran"), [Request()] * 3)
        self.assertEqual(result.stdout, b"Hello from Python\n")
        for response in result.responses:
            self.assertEqual((response.status, response.body), (200, PAGE))
            self.assertEqual(response.headers, [(b"content-type", b"text/plain")])

    def test_the_page_for_the_vanilla_route_is_the_same(self):
        with open(f"{OUT}/pythran/page.txt", "rb") as file:
            self.assertEqual(file.read(), PAGE)


class Counter(unittest.TestCase):
    def test_it_counts_in_shared_memory(self):
        result = run(faked("counter"), [Request()] * 3)
        self.assertEqual([r.body for r in result.responses], [b"Hello %d World!\n" % n for n in (1, 2, 3)])
        self.assertEqual([r.doorbells for r in result.responses], [2, 3, 4])


class Visits(unittest.TestCase):
    def bodies(self, *requests: Request) -> list:
        return [r.body for r in run(faked("visits"), list(requests)).responses]

    def test_a_kept_worker_counts_on(self):
        self.assertEqual(self.bodies(Request(), Request()), [b"visit 1\n", b"visit 2\n"])

    def test_the_next_version_takes_the_number_over(self):
        saved = self.bodies(Request(), Request(), Request(method="mayfly:save"))[2]
        restored = run(faked("visits"), [Request(method="mayfly:restore", body=saved), Request()]).responses
        self.assertEqual([(r.status, r.body) for r in restored], [(200, b""), (200, b"visit 3\n")])

    def test_a_state_that_it_does_not_know_is_refused(self):
        for state in (b"", b"x", struct.pack("<QQ", 2, 7), struct.pack("<QQQ", 1, 7, 0)):
            answers = run(faked("visits"), [Request(method="mayfly:restore", body=state), Request()]).responses
            self.assertEqual([(r.status, r.body) for r in answers], [(500, b""), (200, b"visit 1\n")])


class Store(unittest.TestCase):
    def calls(self, *calls: tuple) -> list:
        """Calls functions, given as name and argument; a failed call's result is its status."""
        requests = [Request(method="mayfly:call", path=name, body=argument) for name, argument in calls]
        return [r.body if r.status == 200 else r.status for r in run(faked("store"), requests).responses]

    def test_what_was_put_is_there_until_it_is_deleted(self):
        self.assertEqual(
            self.calls(
                ("get", b"a"), ("put", b"a\0one"), ("put", b"b\0"), ("get", b"a"),
                ("put", b"a\0\0two\n"), ("get", b"a"), ("get", b"b"), ("count", b""),
                ("delete", b"a"), ("delete", b"a"), ("get", b"a"), ("get", b"b"), ("count", b""),
            ),
            [
                b"", b"new", b"new", b"=one",
                b"replaced", b"=\0two\n", b"=", b"2",
                b"deleted", b"", b"", b"=", b"1",
            ],
        )  # fmt: skip

    def test_it_is_bounded(self):
        full = [("put", b"%d\0x" % n) for n in range(257)]
        then = [("put", b"0\0y"), ("delete", b"7"), ("put", b"new\0x"), ("get", b"255"), ("get", b"new")]
        answers = self.calls(*full, *then)
        self.assertEqual(answers[:256], [b"new"] * 256)
        self.assertEqual(answers[256:], [b"full", b"replaced", b"deleted", b"new", b"=x", b"=x"])

    def test_a_key_or_value_out_of_range_fails(self):
        long = b"k" * 64
        good = ("put", b"k" * 63 + b"\0" + b"v" * 2048)
        self.assertEqual(self.calls(good, ("get", b"k" * 63)), [b"new", b"=" + b"v" * 2048])
        bad = [("put", b""), ("put", b"no-nul"), ("put", b"\0x"), ("put", long + b"\0x"), ("put", b"k\0" + b"v" * 2049)]
        bad += [("get", b""), ("get", long), ("get", b"a\0b"), ("delete", long)]
        self.assertEqual(self.calls(*bad, ("count", b"")), [500] * len(bad) + [b"0"])

    def test_only_calls_of_its_functions_are_carried_out(self):
        self.assertEqual(self.calls(("put ", b"a\0b"), ("", b""), ("drop", b"")), [404] * 3)
        self.assertEqual(run(faked("store"), [Request(path="count")]).responses[0].status, 405)

    def test_the_next_version_takes_the_table_over(self):
        def request(name: str, argument: bytes) -> Request:
            return Request(method="mayfly:call", path=name, body=argument)

        puts = [request("put", b"a\0one"), request("put", b"b\0two")]
        state = run(faked("store"), [*puts, Request(method="mayfly:save")]).responses[2].body
        self.assertLess(len(state), (1 << 20) - 4096, "it fits the default limit on requests")
        after = [request("get", b"b"), request("count", b"")]
        taken = run(faked("store"), [Request(method="mayfly:restore", body=state), *after]).responses
        self.assertEqual([r.body for r in taken], [b"", b"=two", b"2"])
        too_long = bytearray(state)
        too_long[8] = 64  # The first key's size.
        for bad in (state[:-1], b"", b"\2" + state[1:], state[:4] + b"\1\1" + state[6:], bytes(too_long)):
            refused = run(faked("store"), [Request(method="mayfly:restore", body=bad), *after]).responses
            self.assertEqual([(r.status, r.body) for r in refused], [(500, b""), (200, b""), (200, b"0")])


class Notes(unittest.TestCase):
    def ask(self, method: str, path: str, body: bytes = b"", answer: Answer | None = None):
        """The response, and the call that was made for it: function and argument."""
        found = run(faked("notes"), [Request(path, method, body=body), *([answer] if answer else [])]).responses
        call = next(((r.headers[0][0], r.body) for r in found if r.status == 0), None)
        return found[-1], call

    def test_requests_become_calls(self):
        for request, answer, status, body, call in (
            (("PUT", "/notes/a", b"x\0y"), b"new", 201, b"", (b"put", b"a\0x\0y")),
            (("PUT", "/notes/a", b""), b"replaced", 204, b"", (b"put", b"a\0")),
            (("PUT", "/notes/a", b"x"), b"full", 507, b"the store is full\n", (b"put", b"a\0x")),
            (("GET", "/notes/a"), b"=x\0y", 200, b"x\0y", (b"get", b"a")),
            (("HEAD", "/v1/notes/%20"), b"=", 200, b"", (b"get", b"%20")),
            (("GET", "/notes/a"), b"", 404, b"no such note\n", (b"get", b"a")),
            (("DELETE", "/notes/a"), b"deleted", 204, b"", (b"delete", b"a")),
            (("DELETE", "/notes/a"), b"", 404, b"no such note\n", (b"delete", b"a")),
            (("GET", "/notes"), b"7", 200, b"7", (b"count", b"")),
            (("GET", "/notes/"), b"7", 200, b"7", (b"count", b"")),
            (("GET", "/notes/notes"), b"=x", 200, b"x", (b"get", b"notes")),
        ):
            with self.subTest(request=request, answer=answer):
                response, made = self.ask(*request, answer=Answer(answer))
                self.assertEqual((response.status, response.body, made), (status, body, call))

    def test_what_is_wrong_never_reaches_the_store(self):
        for request, status in (
            (("POST", "/notes/a"), 405), (("PUT", "/notes"), 405), (("GET", "/notebook"), 404), (("GET", "/"), 404),
            (("GET", "/notes/a/b"), 400), (("GET", "/notes/" + "k" * 64), 400), (("PUT", "/notes/a", b"v" * 2049), 413),
        ):  # fmt: skip
            with self.subTest(request=request):
                response, call = self.ask(*request)
                self.assertEqual((response.status, call), (status, None))

    def test_a_store_that_does_not_answer_is_said(self):
        for error, status in ((errno.ENOTCONN, 503), (errno.EBUSY, 503), (errno.ETIMEDOUT, 503), (errno.EIO, 500)):
            for request in (("GET", "/notes/a"), ("PUT", "/notes/a", b"x"), ("DELETE", "/notes/a"), ("GET", "/notes")):
                self.assertEqual(self.ask(*request, answer=Answer(error=error))[0].status, status)


class Spin(unittest.TestCase):
    def test_it_spins_only_when_asked(self):
        answers = run(faked("spin"), [Request("/noisy"), Request("/noisy/spin", query="loops=1000")]).responses
        self.assertEqual([r.body for r in answers], [b"Hello World!"] * 2)
        with self.assertRaises(subprocess.TimeoutExpired):
            run(faked("spin"), [Request("/spin")], timeout=0.5)


class Faults(unittest.TestCase):
    def states(self, *requests: str) -> list:
        answers = run(faked("faults"), [Request(path) for path in requests]).responses
        self.assertEqual([a.status for a in answers], [200] * len(requests))
        return [dict(line.split() for line in a.body.decode().splitlines()) for a in answers]

    def test_dirtying_an_entry_shows(self):
        # Without a reset the change is still there in the next request.
        names = run(faked("faults"), [Request("/states")]).responses[0].body.decode().split()
        self.assertGreater(len(names), 40)
        not_ours = {"inbox-tail", "doorbell-mode"}  # Dirtied by requests; the real host's alone.
        volatile = {"cpu-x87-pointers", "cpu-avx", "cpu-avx512"}  # Not on every CPU.
        for name in names:
            with self.subTest(name=name):
                before, _, after = self.states("/state", f"/dirty-{name}", "/state")
                if name not in not_ours | volatile:
                    self.assertNotEqual(before[name], after[name])

    def test_all_at_once(self):
        before, _, after = self.states("/state", "/dirty-all", "/state")
        self.assertGreater(sum(before[name] != after[name] for name in before), 30)

    def test_faults_fault(self):
        for name, signal in {
            "null": 11, "null-write": 11, "null-call": 11, "kernel-half": 11, "non-canonical": 11, "write-text": 11,
            "exec-data": 11, "stack-overflow": 11, "ud2": 4, "div": 8, "int3": 5, "trap-flag": 5, "alignment": 7,
            "fp-exception": 8, "hlt": 11, "mov-cr3": 11, "wrmsr": 11, "xsetbv": 11, "abort": 6, "response-unmapped": 11,
        }.items():  # fmt: skip
            with self.subTest(name=name):
                result = run(faked("faults"), [Request(f"/{name}")])
                self.assertEqual((result.status, result.responses), (-signal, []))
                if not name.startswith("response"):
                    self.assertEqual(run(faked("faults"), [], f"boot:{name}").status, -signal)

    def test_numbers_and_names(self):
        self.assertEqual(run(faked("faults"), [Request("/exit", query="7")]).status, 7)
        self.assertEqual(run(faked("faults"), [], "boot:exit=7").status, 7)
        self.assertEqual(run(faked("faults"), [], "boot:nonsense").status, 2)
        self.assertEqual(run(faked("faults"), [Request("/a/nonsense")]).responses[0].status, 404)
        self.assertEqual(run(faked("faults"), [Request("/touch", query="0x2")]).responses[0].body, b"2\n")
        self.assertEqual(run(faked("faults"), [], "boot:response-unaligned").stderr, b"doorbell -71\n")

    def test_responses_are_as_bad_as_asked(self):
        def headers(path: str, query: str = "") -> list:
            return run(faked("faults"), [Request(path, query=query)]).responses[0].headers

        self.assertEqual(headers("/header-crlf-value"), [(b"x-faults", b"a\r\nset-cookie: owned=1")])
        self.assertEqual(headers("/header-empty-name"), [(b"", b"value")])
        self.assertEqual(len(headers("/header-count", "65")), 65)
        self.assertEqual(run(faked("faults"), [Request("/status", query="99")]).responses[0].status, 99)
        over = run(faked("faults"), [Request("/body-over")]).responses[0]
        self.assertEqual(len(over.body), (1 << 20) + 1)

    def test_code_runs_the_body(self):
        answer = run(faked("faults"), [Request("/code", body=b"\xb8\x2a\0\0\0\xc3")]).responses[0]  # mov $42, %eax; ret
        self.assertEqual(answer.body, b"2a\n")


class Outside(unittest.TestCase):
    def test_a_tenant_outside_mayfly_says_so_and_ends_well(self):
        programs = [built(name) for name in SAMPLES]
        programs += [f"{OUT}/compat/{name}" for name in ("glibc", "glibc-pie", "musl", "cxx")]
        for program in programs:
            with self.subTest(program=program):
                result = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
                self.assertEqual(result.returncode, 0)
                self.assertRegex(result.stderr, rb"\Amayfly: [^\n]*mayfly run[^\n]*\n\Z")


class Compat(unittest.TestCase):
    def report(self, name: str) -> str:
        result = subprocess.run(
            [f"{OUT}/compat/{name}", "a", "b c"],
            env={"COMPAT": "set"}, stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
        )  # fmt: skip
        return result.stdout.decode()

    def test_all_builds_report_the_same_and_nothing_wrong(self):
        reports = {self.report(name) for name in ("glibc", "glibc-pie", "musl")}
        self.assertEqual(len(reports), 1)
        (report,) = reports
        self.assertNotIn("NO", report.split("[a]")[1])
        self.assertIn("arguments 2: [a] [b c]\n", report)

    def test_cxx_reports_nothing_wrong(self):
        report = self.report("cxx")
        for wrong in ("NO", "allocated?", "no match", "REPEATS", "?"):
            self.assertNotIn(wrong, report)
