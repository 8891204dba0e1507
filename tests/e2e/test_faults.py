# SPDX-License-Identifier: MIT OR Apache-2.0
"""Programs that do what none should, in a request: the right status, a reason, and a server that goes on.

The behaviours are those of tenants/faults.
"""

import contextlib
import time
import unittest

from mayfly_server import Server, tenant

LIMITS = {"memory_mib": 8, "request_kib": 64, "response_kib": 64}
# What leaves its loop has the lowest priority; these have to run into their limits on a busy machine, too.
ON_THE_LOOP = {**LIMITS, "inline_budget_us": 1_000_000}
# A first write to a page takes some tens of microseconds on a paging-based KVM, more on a busy machine.
CPU_MS_OF_MEMORY_TESTS = 10_000

EXITED = ("exit", "exit?3", "exit-thread")

# Each ends the program by an exception of the processor, or by a signal to itself.
FAULTED = (
    "null null-write null-call read?0x1000 write?0x1000 call?0x1000 kernel-half non-canonical write-text exec-data"
    " write-request write-page ud2 div int3 int?0x80 int?14 int?32 hlt cli sti mov-cr0 mov-cr3 mov-cr4"
    " read-cr3 mov-dr7 rdmsr wrmsr lgdt lidt ltr invlpg swapgs sysret iret xsetbv wbinvd clts in?0x60 out?0x60"
).split()

# Each faults in Mayfly's own code: the middle of the doorbell, the guest kernel's pages.
VIOLATIONS = ("doorbell-middle?1", "call?0x7fff00005000", "call?0x7fff00007000")

PLACES = ("null", "low", "kernel", "non-canonical", "unmapped", "straddle")
BAD_RESPONSE = (
    [f"{what}-{place}" for what in ("response", "headers", "name", "value", "body") for place in PLACES]
    + [f"status?{status}" for status in (0, 99, 100, 101, 199, 600, 0xFFFFFFFF)]
    + ["header-count?65", "header-count?0xffffffff", "header-max"]
    + [f"header-{kind}" for kind in "crlf-value lf-value nul-value crlf-name space-name colon-name".split()]
    + [f"header-{kind}" for kind in "empty-name utf8-name content-length transfer-encoding connection".split()]
    + [f"header-{kind}" for kind in "keep-alive upgrade te trailer proxy".split()]
)
TOO_LARGE = ("body-over", "body-huge", "body-wrap", "body?0x100001", "name-huge", "value-huge")

LOOPS = ("loop", "loop-syscall", "loop-mmap", "loop-doorbell", "loop-write")
BLOCKS = ("sleep", "futex", "pause", "poll")
ALLOCATES = ("alloc-mmap", "alloc-malloc", "alloc-brk", "touch?64", "stack-overflow")

# Requests that may end in any way, as long as they affect no other tenant.
HARMLESS = ("respond-abi?99", "syscalls-wild", "maps-wild", "forbidden", "alloc-maps", "alloc-terabyte", "wait-twice", "trap-flag")


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(
            Server(
                [
                    tenant("faults", "/faults", limits={**LIMITS, "cpu_ms": 1000}),
                    tenant("loops", "/loops", "faults", limits={**ON_THE_LOOP, "cpu_ms": 100}),
                    tenant("memory", "/memory", "faults", limits={**ON_THE_LOOP, "cpu_ms": CPU_MS_OF_MEMORY_TESTS}),
                    tenant("hello", "/hello"),
                ],
                admin={},
            )
        )

    def check(self, behaviour, status, error, prefix="/faults"):
        """The behaviour's response, after which every thread must go on."""
        response = self.server.get(f"{prefix}/{behaviour}")
        self.assertEqual(response.status, status, response.body)
        self.assertEqual(response.header("content-type"), "application/json")
        body = response.json()
        self.assertEqual(body["error"], error, body)
        self.assertGreater(len(body["reason"]), 10)
        self.assertRegex(body["request_id"], r"^[0-9a-f]+$")
        self.check_goes_on()
        return body

    def check_ready(self, prefix):
        """Every thread has a worker again."""
        for _ in range(16):
            self.assertEqual(self.server.get(f"{prefix}/ok").body, b"ok\n")

    def check_goes_on(self):
        # The kernel deals connections to the threads at random: of sixteen, some reach each.
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self.server.connect()) for _ in range(16)]
            for connection in connections:
                self.assertEqual(connection.fetch("GET", "/faults/ok").body, b"ok\n")
        self.assertEqual(self.server.get("/hello").body, b"Hello World!")

    def test_a_program_that_exits_is_a_502(self):
        for behaviour in EXITED:
            with self.subTest(behaviour):
                self.check(behaviour, 502, "exited")

    def test_a_program_that_aborts_is_a_502(self):
        response = self.server.get("/faults/abort")
        self.assertEqual(response.status, 502)
        self.assertIn(response.json()["error"], ("exited", "faulted"))
        self.check_goes_on()

    def test_a_program_that_faults_is_a_502(self):
        for behaviour in FAULTED:
            with self.subTest(behaviour):
                self.check(behaviour, 502, "faulted")

    def test_a_fault_in_the_sandboxs_own_code_is_a_502_and_an_alarm(self):
        before = self.server.tenant_status("faults")["violations"]
        for behaviour in VIOLATIONS:
            with self.subTest(behaviour):
                self.check(behaviour, 502, "violation")
        self.server.await_log(r"ERROR .*ALARM: a tenant's program may be attacking the sandbox: .*tenant=faults")
        violations = before + len(VIOLATIONS)
        self.assertEqual(self.server.tenant_status("faults")["violations"], violations)
        metrics = self.server.operate("GET", "metrics").body.decode()
        self.assertIn(f'mayfly_tenant_violations_total{{tenant="faults"}} {violations}\n', metrics)
        self.assertIn('mayfly_tenant_violations_total{tenant="hello"} 0\n', metrics)

    def test_a_wild_stack_pointer_spoils_no_request_but_its_own(self):
        # mov rsp, 0x800000000000; jmp r8: rings the doorbell with it.
        code = bytes.fromhex("48bc0000000000800000" "41ffe0")
        for _ in range(20):
            response = self.server.fetch("POST", "/faults/way", code)
            self.assertEqual((response.status, response.body), (200, b"went\n"))
            self.check_goes_on()

    def test_a_response_that_breaks_the_rules_is_a_502(self):
        for behaviour in BAD_RESPONSE:
            with self.subTest(behaviour):
                self.check(behaviour, 502, "bad-response")

    def test_a_response_above_its_limit_is_a_502(self):
        for behaviour in TOO_LARGE:
            with self.subTest(behaviour):
                self.check(behaviour, 502, "response-too-large")

    def test_a_response_at_its_limit_is_sent(self):
        response = self.server.get("/faults/body-limit")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, b"x" * len(response.body))
        self.assertGreaterEqual(len(response.body), 60 * 1024)

    def test_a_program_that_loops_is_a_504_within_its_limit(self):
        for behaviour in LOOPS:
            with self.subTest(behaviour):
                started = time.monotonic()
                self.check(behaviour, 504, "cpu-limit", "/loops")
                # The limit is a tenth of a second; a busy machine adds to it.
                self.assertLess(time.monotonic() - started, 10)

    def test_a_program_that_waits_for_nothing_is_ended(self):
        for behaviour in BLOCKS:
            with self.subTest(behaviour):
                response = self.server.get(f"/loops/{behaviour}")
                # A sleep that the personality cuts short lets the program go on.
                self.assertIn(response.status, (200, 504), response.body)
                self.check_goes_on()

    def test_a_program_that_takes_all_memory_is_a_507(self):
        for behaviour in ALLOCATES:
            with self.subTest(behaviour):
                self.check(behaviour, 507, "memory-limit", "/memory")

    def test_a_program_may_use_memory_within_its_limit(self):
        self.check_ready("/memory")
        for _ in range(3):
            self.assertEqual(self.server.get("/memory/touch?4").body, b"4\n")

    def test_a_request_above_its_limit_is_a_413(self):
        # The limit is met to the page.
        response = self.server.fetch("POST", "/faults/ok", b"x" * (72 * 1024))
        self.assertEqual(response.status, 413)
        self.assertEqual(response.json()["error"], "request-too-large")
        self.check_goes_on()

    def test_a_request_within_its_limit_is_served(self):
        self.assertEqual(self.server.fetch("POST", "/faults/ok", b"x" * (60 * 1024)).status, 200)

    def test_a_body_above_drogons_limit_is_a_413(self):
        # Drogon's own client_max_body_size is 1 MiB, and it reads no further.
        answer = self.server.raw(b"POST /faults/ok HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)

    def test_good_responses_of_every_kind_are_sent(self):
        upper = self.server.get("/faults/header-upper-case")
        self.assertEqual((upper.status, upper.header("x-faults")), (200, "Value"))
        self.assertEqual(self.server.get("/faults/header-empty-value").header("x-faults"), "")
        self.assertEqual(self.server.get("/faults/header-big").header("x-faults"), "v" * 4000)
        cookies = [value for name, value in self.server.get("/faults/header-cookies").headers if name.lower() == "set-cookie"]
        self.assertEqual(sorted(cookies), ["a=1", "b=2"])
        names = {name for name, _ in self.server.get("/faults/header-count?64").headers}
        self.assertTrue({f"x-{i}" for i in range(64)} <= names)
        self.assertEqual(self.server.get("/faults/response-unaligned").status, 200)
        for status in (200, 201, 299, 301, 404, 418, 500, 599):
            self.assertEqual(self.server.get(f"/faults/status?{status}").status, status)

    def test_no_header_of_a_tenants_smuggles_another(self):
        for behaviour in ("header-crlf-value", "header-lf-value", "header-crlf-name"):
            response = self.server.get(f"/faults/{behaviour}")
            self.assertIsNone(response.header("set-cookie"))

    def test_wild_calls_harm_nobody(self):
        for behaviour in HARMLESS:
            with self.subTest(behaviour):
                self.assertIn(self.server.get(f"/faults/{behaviour}").status, (200, 502, 504, 507))
                self.check_goes_on()


if __name__ == "__main__":
    unittest.main()
