# SPDX-License-Identifier: MIT OR Apache-2.0
"""A change is distinguished from noise."""

import contextlib
import copy
import io
import json
import tempfile
import unittest
from pathlib import Path

from mayfly_bench import change

from . import fixtures


class Changes(unittest.TestCase):
    def test_rounds_that_overlap_are_no_change(self) -> None:
        self.assertTrue(change.overlap([{"x": 1}, {"x": 3}], [{"x": 2}, {"x": 9}], "x"))
        self.assertFalse(change.overlap([{"x": 1}, {"x": 3}], [{"x": 4}, {"x": 9}], "x"))

    def test_a_report_does_not_differ_from_itself(self) -> None:
        verdicts = {row[-1] for row in change.wrk_changes(fixtures.report(), fixtures.report())[1:]}
        self.assertEqual(verdicts, {""})

    def test_a_slower_route_is_named(self) -> None:
        old, new = fixtures.report(), fixtures.report()
        slower = new["wrk"][1]
        slower["cpu_us"] *= 2
        slower["rounds"] = [round_ | {"cpu_us": round_["cpu_us"] * 2} for round_ in copy.deepcopy(slower["rounds"])]
        changed = [row for row in change.wrk_changes(old, new) if row[-1] == "changed"]
        self.assertEqual([row[:3] + row[5:6] for row in changed], [["c1", "kvm", "server CPU µs", "+100.0"]])

    def test_engines_are_compared_each_with_itself_and_an_old_report_is_of_kvm(self) -> None:
        old, new = fixtures.report(), fixtures.report("kvm", "process")
        changes = change.wrk_changes(old, new)[1:]
        self.assertEqual({(row[1], row[-1]) for row in changes}, {("vanilla", ""), ("kvm", "")})
        bars = {(row[0], row[1]): row[3:] for row in change.bar_changes(old, new)[1:]}
        self.assertEqual(bars["kvm", "exits per request"], ["1", "1"])
        self.assertEqual(bars["process", "fork of a worker, µs"], ["not measured", "200"])

    def test_the_program_reads_two_files_and_refuses_what_is_no_report(self) -> None:
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()) as said:
            report, other = Path(scratch, "report.json"), Path(scratch, "other.json")
            report.write_text(json.dumps(fixtures.report()))
            other.write_text("[]")
            self.assertEqual(change.main([str(report), str(report)]), 0)
            with contextlib.redirect_stderr(io.StringIO()) as complaint:
                self.assertEqual(change.main([str(report), str(other)]), 1)
        self.assertIn("vanilla", said.getvalue())
        self.assertIn("rest on 2 rounds", said.getvalue())
        self.assertIn("other.json", complaint.getvalue())
