# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests the sample tenants natively, linked with the fake host, and the real ones outside Mayfly."""

import base64
import json
import os
import subprocess
import unittest

from tenant import Request, run

OUT = os.environ["OUT"]
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


class Faults(unittest.TestCase):
    def states(self, *requests: str) -> list:
        answers = run(faked("faults"), [Request(path) for path in requests]).responses
        self.assertEqual([a.status for a in answers], [200] * len(requests))
        return [dict(line.split() for line in a.body.decode().splitlines()) for a in answers]

    def test_dirtying_an_entry_shows(self):
        # Without a reset the change is still there in the next request.
        names = run(faked("faults"), [Request("/states")]).responses[0].body.decode().split()
        self.assertGreater(len(names), 40)
        not_ours = {"inbox-tail"}  # Dirtied by requests.
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
        programs = [built(name) for name in ("hello", "echo", "pythran", "faults")]
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
