# SPDX-License-Identifier: MIT OR Apache-2.0
"""The report reads the same in all its forms, and the page is whole and stands alone."""

import re
import unittest
from html.parser import HTMLParser

from mayfly_bench import charts, engines, figures, page, summary

from . import fixtures

_VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Collects elements that are not closed where they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


class Page(unittest.TestCase):
    def test_every_element_is_closed(self) -> None:
        balance = Balance()
        balance.feed(page.render(fixtures.report()))
        self.assertEqual((balance.open, balance.wrong), ([], []))

    def test_nothing_is_loaded_from_elsewhere(self) -> None:
        self.assertIsNone(re.search(r"(src|href)=|url\(|@import|https?:", page.render(fixtures.report())))

    def test_what_came_from_outside_is_escaped(self) -> None:
        rendered = page.render(fixtures.report())
        self.assertIn("A &lt;CPU&gt; &amp; more", rendered)
        self.assertNotIn("<CPU>", rendered)

    def test_a_run_without_pinned_figures_still_renders(self) -> None:
        report = fixtures.report()
        report["wrk"] = [entry for entry in report["wrk"] if not entry["pinned"]]
        self.assertIn("too short", page.render(report))

    def test_both_engines_are_side_by_side(self) -> None:
        rendered = page.render(fixtures.report("kvm", "process"))
        balance = Balance()
        balance.feed(rendered)
        self.assertEqual((balance.open, balance.wrong), ([], []))
        for class_ in ("vanilla", "kvm", "process"):
            self.assertIn(f'class="stroke {class_}"', rendered)
            self.assertIn(f'<tr class="{class_}">', rendered)
        for heading in (">KVM<", ">Processes<"):
            self.assertEqual(rendered.count(heading.strip("<") + "</span></h3>"), 2)
        for part in fixtures.report("kvm", "process")["engines"].values():
            for bar in part["bars"]:
                self.assertIn(bar["key"], rendered)

    def test_every_aim_is_on_the_page(self) -> None:
        rendered = page.render(fixtures.report())
        for bar in fixtures.report()["bars"]:
            self.assertIn(bar["key"], rendered)


class Summary(unittest.TestCase):
    def test_the_headline_holds_this_run_s_figures(self) -> None:
        (words,) = summary.headlines(fixtures.report())
        self.assertRegex(words, r"virtual machine .* adds 20 µs .* 20 µs is the bare KVM_RUN .* 40,000 .* 100,000")

    def test_each_engine_has_its_sentence(self) -> None:
        kvm, process = summary.headlines(fixtures.report("kvm", "process"))
        self.assertIn("virtual machine", kvm)
        self.assertRegex(process, r"process .* adds 7 µs .* 3.50 µs is the bare round trip to a process; .* 80,000 .* 100,000")

    def test_a_busy_machine_is_named_before_any_figure(self) -> None:
        report = fixtures.report()
        self.assertNotIn("was busy", summary.terminal(report) + summary.markdown(report) + page.render(report))
        for entry in report["wrk"]:
            entry["rounds"] = [round_ | {"others_percent": 40.0} for round_ in entry["rounds"]]
        for seen in (seen for modes in report["runtimes"].values() for seen in modes.values()):
            for load in (seen, seen["all_cores"]):
                load["rounds"] = {
                    side: [round_ | {"others_percent": 40.0} for round_ in taken] for side, taken in load["rounds"].items()
                }
        for written in (summary.terminal(report), summary.markdown(report), page.render(report)):
            self.assertLess(written.index("was busy: others used 40 %"), written.index("exits per request"))

    def test_columns_line_up(self) -> None:
        self.assertEqual(summary.aligned([["a", "n"], ["bb", "1"], ["c", "20"]]), "a    n\n------\nbb   1\nc   20")

    def test_markdown_has_a_row_for_every_load_and_route(self) -> None:
        written = summary.markdown(fixtures.report())
        for load in ("c1", "c8", "c1 pinned"):
            for route in ("vanilla", "kvm"):
                self.assertIn(f"| {load} | {route} |", written)


class Tables(unittest.TestCase):
    def test_rows_of_engines_that_agree_follow_each_other_and_none_is_lost_or_repeated(self) -> None:
        kvm, process = [["a", "n"], ["x", "1"], ["y", "2"], ["y", "3"]], [["a", "n"], ["y", "4"], ["z", "5"]]
        both = engines.side_by_side({"kvm": kvm, "process": process, "none": []}, 1)
        rows = [["x", "kvm", "1"], ["y", "kvm", "2"], ["y", "kvm", "3"], ["y", "process", "4"], ["z", "process", "5"]]
        self.assertEqual(both, [["a", "engine", "n"], *rows])
        one_by_one = [row[0] for row in engines.side_by_side({"kvm": kvm, "process": process}, 0)]
        self.assertEqual(one_by_one, ["engine", *["kvm"] * 3, *["process"] * 2])
        self.assertEqual(engines.side_by_side({"kvm": []}, 1), [])

    def test_each_engine_has_a_column(self) -> None:
        kvm, process = [["a", "n"], ["x", "1"], ["y", "2"]], [["a", "n"], ["y", "4"], ["z", "5"]]
        self.assertEqual(
            engines.columns({"kvm": kvm, "process": process}, 1, 1),
            [["a", "kvm", "process"], ["x", "1", ""], ["y", "2", "4"], ["z", "", "5"]],
        )

    def test_every_aim_has_one_row(self) -> None:
        report = fixtures.report("kvm", "process")
        self.assertEqual(len(figures.bars_table(report)), 1 + sum(len(part["bars"]) for part in report["engines"].values()))


class Words(unittest.TestCase):
    def test_figures_are_worded_to_their_size(self) -> None:
        words = {None: "not measured", 0: "0", 1: "1", 0.951: "0.95", 28.06: "28.1", 412.3: "412", 101_234.5: "101,234"}
        for value, expected in words.items():
            self.assertEqual(figures.number(value), expected)

    def test_marks_are_short(self) -> None:
        self.assertEqual([charts.compact(value) for value in (8.24, 940, 52_340, 1.3e6)], ["8.24", "940", "52.3k", "1.3M"])
