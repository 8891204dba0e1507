# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two routes are only compared if they answer the same."""

import unittest

from mayfly_bench.errors import BenchError
from mayfly_bench.pages import Page, check_comparable

PAGE = Page(200, {"content-type": "text/plain", "date": "now"}, b"page")


class Comparable(unittest.TestCase):
    def test_the_same_page_at_another_time_is_the_same(self) -> None:
        check_comparable(PAGE, Page(200, PAGE.headers | {"date": "later"}, b"page"))

    def test_differences_are_named(self) -> None:
        others = {
            "502: it exited": Page(502, PAGE.headers, b'{"reason": "it exited"}'),
            "different bytes": Page(200, PAGE.headers, b"other"),
            "x-extra": Page(200, PAGE.headers | {"x-extra": "1"}, b"page"),
            "text/html": Page(200, PAGE.headers | {"content-type": "text/html"}, b"page"),
        }
        for named, other in others.items():
            with self.subTest(named), self.assertRaisesRegex(BenchError, named):
                check_comparable(PAGE, other)
