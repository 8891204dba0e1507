# SPDX-License-Identifier: MIT OR Apache-2.0
"""What counts, and what a list of expected failures says about it."""

import unittest

from conformance.errors import ConformanceError
from conformance.expected import judge, parse
from conformance.verdicts import Comparison, Run, Test, Verdict, compare, planned

OK, FAILED, SKIPPED = Test(Verdict.OK), Test(Verdict.FAILED, "cause"), Test(Verdict.SKIPPED, "reason")


class Counting(unittest.TestCase):
    def test_only_what_passes_natively_counts(self) -> None:
        native = Run({"A.ok": OK, "A.bad": FAILED, "A.skip": SKIPPED})
        seen = compare(native, Run({"A.ok": OK, "A.bad": OK, "A.skip": OK}))
        self.assertEqual((seen.passed, seen.failed, seen.process), (["A.ok"], {}, []))

    def test_failed_skipped_and_not_run_are_failures(self) -> None:
        native = Run({"A.a": OK, "A.b": OK, "B.c": OK})
        seen = compare(native, Run({"A.a": FAILED, "A.b": SKIPPED}, setups={"B": "OSError"}))
        self.assertEqual(seen.failed, {"A.a": "cause", "A.b": "skipped: reason", "B.c": "not run: OSError"})

    def test_who_asks_for_a_process_natively_counts_apart(self) -> None:
        native = Run({"A.a": Test(Verdict.OK, process=True), "A.b": OK})
        self.assertEqual(planned(native), ["A.b"])
        seen = compare(native, Run({"A.b": OK}))
        self.assertEqual((seen.passed, seen.process), (["A.b"], ["A.a"]))

    def test_who_fails_inside_for_want_of_a_process_counts_apart(self) -> None:
        native = Run({"A.a": OK, "A.b": OK})
        inside = Run({"A.a": Test(Verdict.FAILED, process=True), "A.b": Test(Verdict.OK, process=True)})
        seen = compare(native, inside)
        self.assertEqual((seen.passed, seen.process), (["A.b"], ["A.a"]))

    def test_a_set_up_with_a_process_excuses_only_what_did_not_run(self) -> None:
        native = Run({"A.a": OK, "A.b": OK, "A.c": OK, "B.d": OK}, process_setups={"A"})
        seen = compare(native, Run({"A.a": FAILED, "A.b": SKIPPED, "B.d": SKIPPED}))
        self.assertEqual((list(seen.failed), seen.process), (["A.a", "B.d"], ["A.b", "A.c"]))

    def test_a_run_is_kept_as_it_was(self) -> None:
        run = Run({"A.a": Test(Verdict.FAILED, "x", True, 1.5)}, {"": "y"}, {"B"})
        self.assertEqual(Run.from_json(run.as_json()), run)


class Lists(unittest.TestCase):
    def test_a_failure_that_is_not_listed_is_bad(self) -> None:
        seen = judge(Comparison(["A.a"], {"A.b": "x", "A.c": "y"}), parse("fails A.b why it fails\n", "list"))
        self.assertEqual((seen.counted, seen.passed, seen.expected, seen.unexpected), (3, 1, 1, {"A.c": "y"}))
        self.assertFalse(seen.good)

    def test_a_listed_test_that_passes_is_bad(self) -> None:
        seen = judge(Comparison(["A.a", "A.b"], {}), parse("# a comment\n\nfails A.b why\n", "list"))
        self.assertEqual(seen.mended, ["A.b"])
        self.assertFalse(seen.good)
        self.assertEqual(seen.percent, 100.0)

    def test_listed_tests_that_do_not_count_are_no_matter(self) -> None:
        self.assertTrue(judge(Comparison(["A.a"]), parse("fails A.gone why\n", "list")).good)

    def test_processes_and_what_varies_count_apart(self) -> None:
        listed = parse("process A.a a helper\nvaries A.b a sleep of 1 ms\n", "list")
        seen = judge(Comparison(["A.b", "A.c"], {"A.a": "x"}, ["A.d"]), listed)
        self.assertEqual((seen.counted, seen.passed, seen.process), (1, 1, 2))
        self.assertTrue(seen.good)

    def test_wrong_lines_are_refused_with_their_number(self) -> None:
        for text, told in {
            "fials A.a why": "list:1: a line is",
            "fails": "list:1: a line is",
            "\nfails A.a": "list:2: A.a has no reason",
            "fails A.a x\nvaries A.a y": "list:2: A.a is in the list already",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(ConformanceError, told):
                parse(text, "list")
