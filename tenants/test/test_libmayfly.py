# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests the SDKs of other languages natively: the sample programs as they are, with the fake host preloaded."""

import ctypes
import errno
import json
import subprocess
import threading
import time
import unittest

from samples import BY_SDK, OUT, each, environment
from tenant import Answer, Request, run

FAKE = f"{OUT}/test/fakehost.so"


def ask(name: str, *requests: Request):
    program, *args = BY_SDK[name]
    return run(program, list(requests), *args, env=environment(name, LD_PRELOAD=FAKE))


class EachSdk(unittest.TestCase):
    @each(BY_SDK)
    def test_one_request_is_one_doorbell(self, name):
        result = ask(name, *[Request()] * 5)
        self.assertEqual((result.status, result.stderr), (0, b""))
        self.assertEqual([r.doorbells for r in result.responses], [2, 3, 4, 5, 6])
        for response in result.responses:
            self.assertEqual((response.status, response.body), (200, b"Hello World!"))
            self.assertEqual(response.headers, [(b"content-type", b"text/plain")])

    @each(BY_SDK)
    def test_every_part_of_a_request_arrives(self, name):
        headers = [("host", "localhost"), ("x-empty", ""), ("x-long", "v" * 5000), ("x-a", "\x7f")]
        request = Request("/echo", "PUT", "a=b&c=%20", "h\u00e4 \U0001f41d".encode() * 3000, headers)
        (response,) = ask(name, request).responses
        self.assertEqual(response.headers, [(b"content-type", b"application/json")])
        self.assertEqual(
            json.loads(response.body),
            {
                "method": "PUT",
                "path": "/echo",
                "query": "a=b&c=%20",
                "headers": dict(headers),
                "body": "h\u00e4 \U0001f41d" * 3000,
            },
        )

    @each(BY_SDK)
    def test_nothing_of_a_request_is_left_in_the_next(self, name):
        long = Request("/echo", "OPTIONS", "q" * 3000, b"b" * 9000, [("x-a", "1" * 3000), ("x-b", "2")])
        responses = ask(name, long, Request("/echo")).responses
        self.assertEqual(
            json.loads(responses[1].body), {"method": "GET", "path": "/echo", "query": "", "headers": {}, "body": ""}
        )

    @each(BY_SDK)
    def test_bytes_that_are_no_text_are_survived(self, name):
        request = Request(b"/\xff/echo", query=b"\xfe\xc3", headers=[("x", b"\xfd")], body=bytes(range(256)))
        responses = ask(name, request, Request()).responses
        self.assertEqual([r.status for r in responses], [200, 200])
        self.assertEqual(responses[1].body, b"Hello World!")

    @each(BY_SDK)
    def test_a_large_body_comes_and_goes(self, name):
        body = b"x" * (900 << 10)
        (response,) = ask(name, Request("/echo", "POST", body=body)).responses
        self.assertEqual(json.loads(response.body)["body"].encode(), body)

    @each(BY_SDK)
    def test_outside_mayfly_the_program_says_so(self, name):
        result = subprocess.run(BY_SDK[name], capture_output=True, text=True, timeout=30, env=environment(name))
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertIn("inside Mayfly only", result.stderr)

    @each(BY_SDK)
    def test_random_numbers_come_from_the_requests_entropy(self, name):
        requests = [Request("/random", entropy=bytes([n]) * 32) for n in (1, 2, 1)]
        one, two, same = (json.loads(r.body) for r in ask(name, *requests).responses)
        self.assertNotEqual(one["random"], two["random"])
        self.assertNotEqual(one["uuid"], two["uuid"])
        self.assertEqual(one["random"], same["random"])
        self.assertTrue(0 <= one["random"] < 1)
        self.assertRegex(one["uuid"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


class Handlers(unittest.TestCase):
    """What a handler may return, by programs that are written for the test."""

    SCRIPTS = {
        "deno": 'import { serve } from "%s/sdk/deno/mayfly.js";' % OUT,
        "node": 'import { serve } from "%s/sdk/node/mayfly.mjs";' % OUT,
    }
    HANDLER = """
      let calls = 0;
      serve(async (request) => {
        calls++;
        switch (request.path) {
          case "/bytes": return new Uint8Array([0, 255]);
          case "/list": return { status: 201, headers: [["set-cookie", "a"], ["set-cookie", "b"]], body: "\\u00e4" };
          case "/late": await new Promise((resolve) => setTimeout(resolve, 1)); return "late";
          case "/calls": return String(calls);
          case "/nothing": return { status: 204 };
          case "/wrong": return { body: 1 };
          case "/large": return "x".repeat(200 << 20);
          case "/throws": throw new Error("as I was told");
          case "/part": return request.body.subarray(1, 3);
          case "/entropy": return request.entropy;
          case "/id": return String(request.id);
          case "/header": return request.header("x-a") + request.header("x-b");
        }
      }, { warmUp: %s });
    """

    def ask(self, name: str, *requests: Request, warm_up: str = "false"):
        script = self.SCRIPTS[name] + self.HANDLER % warm_up
        program = BY_SDK[name][0]
        path = f"{OUT}/test/handlers-{name}.mjs"
        with open(path, "w") as file:
            file.write(script)
        args = ["run", "--allow-ffi", path] if name == "deno" else [path]
        return run(program, list(requests), *args, env=environment(name, LD_PRELOAD=FAKE))

    @each(SCRIPTS)
    def test_responses(self, name):
        paths = ["/bytes", "/list", "/late", "/calls", "/nothing", "/wrong", "/large", "/throws", "/undefined", "/calls"]
        result = self.ask(name, *(Request(path) for path in paths))
        got = [(r.status, r.headers, r.body) for r in result.responses]
        cookies = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]
        self.assertEqual(
            got,
            [
                (200, [], b"\x00\xff"), (201, cookies, "\u00e4".encode()), (200, [], b"late"), (200, [], b"4"),
                (204, [], b""), (500, [], b""), (500, [], b""), (500, [], b""), (200, [], b""), (200, [], b"10"),
            ],
        )  # fmt: skip
        for why in (b"string or a Uint8Array", b"larger than the tenant's limit", b"as I was told"):
            self.assertIn(why, result.stderr)

    @each(SCRIPTS)
    def test_parts_of_a_request(self, name):
        requests = [
            Request("/part", body=b"abcd"), Request("/entropy"), Request("/id", id=2**64 - 1),
            Request("/header", headers=[("x-a", "1"), ("x-a", "2"), ("x-b", "3")]),
        ]  # fmt: skip
        part, entropy, number, header = (r.body for r in self.ask(name, *requests).responses)
        self.assertEqual((part, len(entropy), number, header), (b"bc", 32, b"18446744073709551615", b"13"))
        self.assertNotEqual(entropy, bytes(32))  # It is made of the entropy, which stays the SDK's.

    @each(SCRIPTS)
    def test_the_warm_up_asks_what_it_is_told_to(self, name):
        (response,) = self.ask(name, Request("/calls"), warm_up='{ count: 7, path: "/throws" }').responses
        self.assertEqual(response.body, b"8")


class RustCrate(unittest.TestCase):
    def ask(self, *requests):
        return run(f"{OUT}/test/parts", list(requests), env={"LD_PRELOAD": FAKE})

    def test_responses_and_limits(self):
        paths = ["/count", "/count", "/limits", "/panic", "/many", "/taken", "/other"]
        result = self.ask(*(Request(path) for path in paths))
        self.assertEqual(
            [(r.status, r.body) for r in result.responses],
            [
                (200, b"Some(1)"), (200, b"Some(2)"), (200, b"4194304 1048576 64"), (500, b""), (500, b""),
                (200, b"the host has been opened already"), (404, b""),
            ],
        )  # fmt: skip
        self.assertIn(b"as I was told", result.stderr)
        self.assertIn(b"the host refused the response: error 7", result.stderr)

    def test_parts_of_a_request(self):
        result = self.ask(
            Request("/header", headers=[("x-b", "0"), ("x-a", "1"), ("x-a", "2")]), Request("/header"),
            Request("/when", id=2**64 - 1, unix_ns=2, monotonic_ns=3),
        )  # fmt: skip
        self.assertEqual([r.body for r in result.responses], [b"1", b"none", b"18446744073709551615 2 3"])

    def test_calls_of_a_storage_program(self):
        answers = [Answer(b"a value"), Answer(error=errno.ENOENT), Answer(b"x" * 17)]
        frames = [frame for answer in answers for frame in (Request("/get", body=b"key"), answer)]
        responses = self.ask(*frames).responses
        self.assertEqual([(r.status, r.body) for r in responses[::2]], [(0, b"key")] * 3)
        self.assertEqual(responses[0].headers, [(b"get", b"")])
        self.assertEqual([r.body for r in responses[1::2]], [b"a value", b"2", b"90"])  # ENOENT, EMSGSIZE

    def test_requests_of_the_hosts_own(self):
        requests = [Request(method=f"mayfly:{name}", path="f", body=b"state") for name in ("call", "save", "restore")]
        responses = self.ask(*requests, Request(method="mayfly:restore", body=b"other")).responses
        self.assertEqual([(r.status, r.body) for r in responses], [(200, b"state"), (200, b"state"), (200, b""), (500, b"")])


class Library(unittest.TestCase):
    def test_the_block_function_of_the_generator(self):
        subprocess.run([f"{OUT}/test/chacha_test"], check=True, timeout=30)

    def test_a_response_that_is_not_in_the_mailbox_is_refused(self):
        script = """
            import ctypes, struct, sys
            library = ctypes.CDLL(sys.argv[1])
            library.mayfly_ffi_open.restype = ctypes.c_void_p
            print(library.mayfly_ffi_exchange())
            address = library.mayfly_ffi_open()
            capacity = ctypes.c_uint32.from_address(address + 4).value
            mailbox = (ctypes.c_ubyte * capacity).from_address(address)
            library.mayfly_ffi_wait()
            wrong = [(200, 0, 1, capacity), (200, 0, 2**32 - 1, 0), (200, 1, 0, capacity - 4), (200, 257, 0, 1024)]
            wrong += [(200, 0, 0, 2**32 - 1), (200, 2**32 - 1, 0, 1024)]
            for fields in wrong:
                struct.pack_into("<IIII", mailbox, 8, *fields)
                print(library.mayfly_ffi_exchange())
            for sizes in ((2**32 - 1, 0), (0, 2**32 - 1), (capacity - 1024 - 7, 0), (0, capacity - 1024 - 7)):
                struct.pack_into("<IIII", mailbox, 8, 200, 1, 0, 1024)
                struct.pack_into("<II", mailbox, 1024, *sizes)
                print(library.mayfly_ffi_exchange())
            sys.stdout.flush()
            struct.pack_into("<IIII", mailbox, 8, 200, 0, 0, capacity)
            library.mayfly_ffi_exchange()
        """
        code = "if True:\n" + script
        result = run(
            "/usr/bin/python3", [Request()], "-c", code, f"{OUT}/sdk/lib/libmayfly.so", env={"LD_PRELOAD": FAKE}
        )
        # EPROTO before there is a request, then EINVAL.
        self.assertEqual((result.stderr, result.stdout.split()), (b"", [b"-71"] + [b"-22"] * 10))
        self.assertEqual([(r.status, r.body) for r in result.responses], [(200, b"")])

    def test_a_rest_tells_the_time_that_other_threads_used(self):
        # When it ends is for the program's scheduler: natively, a thread with work may get no processor for a while.
        def work():
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass

        library = ctypes.CDLL(f"{OUT}/sdk/lib/libmayfly.so")
        library.mayfly_ffi_rest.restype = ctypes.c_uint32
        self.assertLess(library.mayfly_ffi_rest(), 5_000)
        thread = threading.Thread(target=work)
        thread.start()
        reported_us = 0
        while thread.is_alive():
            reported_us += library.mayfly_ffi_rest()
        self.assertGreater(reported_us, 5_000)


if __name__ == "__main__":
    unittest.main()
