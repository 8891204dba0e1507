# SPDX-License-Identifier: MIT OR Apache-2.0
"""What other programs print is read right, and what they do not print is named."""

import unittest

from mayfly_bench import host, jsonc, micro, steady_state, wrk
from mayfly_bench.errors import BenchError

TRACE = """\
10 ioctl(7, KVM_RUN, 0)              = 0
10 write(2, "mayfly-bench: steady begin\\n", 27) = 27
10 ioctl(7, KVM_RUN <unfinished ...>
11 clock_nanosleep(CLOCK_MONOTONIC, 0, {tv_sec=0, tv_nsec=1000000}, NULL) = 0
10 <... ioctl resumed>, 0)           = 0
10 ioctl(7, KVM_RUN, 0)              = 0
10 ioctl(7, KVM_SET_REGS, 0x7ffc)    = 0
10 madvise(0x7f00, 4096, MADV_DONTNEED) = 0
10 write(2, "mayfly-bench: steady end\\n", 25) = 25
10 munmap(0x7f00, 4096)              = 0
"""

WRK = (
    'Running 1s test\nmayfly-wrk: {"requests":2000,"duration_us":1000000,"p50_us":10,"p75_us":11,"p90_us":12,'
    '"p99_us":13,"max_us":99,"connect":1,"read":2,"write":3,"timeout":4,"status":5}\n'
)


class Comments(unittest.TestCase):
    def test_comments_go_and_strings_stay(self) -> None:
        self.assertEqual(jsonc.loads('{/* a */ "url": "http://x/*y*/", // b\n "n": "\\"//"}'), {"url": "http://x/*y*/", "n": '"//'})


class Strace(unittest.TestCase):
    def test_only_calls_between_the_marks_count(self) -> None:
        seen = steady_state.parse(TRACE, 2, "kvm")
        self.assertEqual(seen.run_ioctls, 2)
        self.assertEqual(seen.other_calls, {"ioctl": 1, "madvise": 1})

    def test_other_threads_are_counted_apart(self) -> None:
        self.assertEqual(steady_state.parse(TRACE, 2, "kvm").background_calls, {"clock_nanosleep": 1})

    def test_every_ioctl_counts_towards_ioctls_per_request(self) -> None:
        self.assertEqual(steady_state.parse(TRACE, 2, "kvm").as_report()["ioctls_per_request"], 1.5)

    def test_a_request_of_a_process_is_two_ioctls(self) -> None:
        trace = (
            '10 write(2, "mayfly-bench: steady begin\\n", 27) = 27\n'
            "10 ioctl(8, SECCOMP_IOCTL_NOTIF_SEND, {id=0x1, val=0, error=0, flags=0}) = 0\n"
            "12 <... getppid resumed>) = 0\n12 getppid( <unfinished ...>\n"
            "10 ioctl(8, SECCOMP_IOCTL_NOTIF_RECV, {id=0x2, pid=12, flags=0, data={nr=__NR_getppid}}) = 0\n"
            '10 write(2, "mayfly-bench: steady end\\n", 25) = 25\n'
        )
        seen = steady_state.parse(trace, 1, "process")
        self.assertEqual((seen.run_ioctls, seen.other_calls, seen.background_calls), (2, {}, {"getppid": 1}))
        self.assertEqual(steady_state.parse(trace, 1, "kvm").other_calls, {"ioctl": 2})

    def test_a_trace_without_marks_is_refused(self) -> None:
        for trace in ("", TRACE.split("\n", 2)[2], TRACE[: TRACE.index("steady end")]):
            with self.assertRaisesRegex(BenchError, "marks"):
                steady_state.parse(trace, 2, "kvm")


class Wrk(unittest.TestCase):
    def test_the_result_line_is_read(self) -> None:
        seen = wrk.parse(WRK)
        self.assertEqual((seen.rps, seen.p99_us, seen.errors), (2000.0, 13, 15))

    def test_no_result_is_an_error(self) -> None:
        with self.assertRaisesRegex(BenchError, "no result"):
            wrk.parse("unable to connect")

    def test_no_answer_is_an_error(self) -> None:
        with self.assertRaisesRegex(BenchError, "no request"):
            wrk.parse(WRK.replace("2000", "0"))


class Micro(unittest.TestCase):
    def test_what_is_no_json_object_is_an_error(self) -> None:
        for output in ("", "[]", "floor 27 us"):
            with self.assertRaises(BenchError):
                micro.parse(output)

    def test_the_typical_run_is_the_one_with_the_median_overhead(self) -> None:
        runs = [{"floor_us": floor, "call_reset_us": call} for floor, call in ((20, 29), (30, 31), (20, 22))]
        self.assertIs(micro.typical(runs), runs[2])


    def test_figures_that_others_change_are_medians(self) -> None:
        self.assertEqual(micro.medians([{"worker_total_kib": kib} for kib in (90.0, 900.0, 100.0)]), {"worker_total_kib": 100.0})
        self.assertEqual(micro.medians([{"worker_total_kib": None}]), {})


class Host(unittest.TestCase):
    def test_the_allocator_is_seen_in_the_maps(self) -> None:
        self.assertEqual(host.allocator("7f r-xp /usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n"), "jemalloc")
        self.assertTrue(host.allocator("").endswith("malloc"))

    def test_the_cpu_is_named_with_family_and_model(self) -> None:
        text = "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
        self.assertEqual(host.cpu_model(text), "AMD EPYC (family 26, model 2)")
