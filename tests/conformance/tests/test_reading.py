# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the suites print is read right."""

import unittest

from conformance import cpython, go
from conformance.verdicts import Verdict


def read(reader, text: str):
    # Not splitlines(), which ends lines at the mark.
    for line in text.replace("@", cpython.MARK).split("\n"):
        reader.line(line)
    return reader


class CPython(unittest.TestCase):
    def test_verdicts_with_their_causes(self) -> None:
        lines = read(
            cpython.Lines(),
            "@start m.A.a\nnoise ok m.A.b\n@ok m.A.a \n@start m.A.b\n@failed m.A.b OSError: [Errno 38] no\n@start m.A.c\n@skipped m.A.c why\n@end - \n",
        )
        self.assertEqual([t.verdict for t in lines.run.tests.values()], [Verdict.OK, Verdict.FAILED, Verdict.SKIPPED])
        self.assertEqual(lines.run.tests["m.A.b"].cause, "OSError: [Errno 38] no")
        self.assertTrue(lines.ended)

    def test_a_process_belongs_to_the_test_under_way(self) -> None:
        lines = read(cpython.Lines(), "@start m.A.a\n@process m.A.a\n@ok m.A.a\n@start m.A.b\n@ok m.A.b\n@end -")
        self.assertEqual({name: t.process for name, t in lines.run.tests.items()}, {"m.A.a": True, "m.A.b": False})
        self.assertEqual(lines.run.process_setups, set())

    def test_a_process_between_tests_belongs_to_the_next_class(self) -> None:
        lines = read(cpython.Lines(), "@start m.A.a\n@ok m.A.a\n@process -\n@start m.B.b\n@ok m.B.b\n@end -")
        self.assertEqual(lines.run.process_setups, {"m.B"})

    def test_a_process_of_a_module_that_loads_is_the_modules(self) -> None:
        lines = read(cpython.Lines(), "@process -\n@start m.A.a\n@ok m.A.a\n@end -")
        self.assertEqual(lines.run.process_setups, {"", "m.A"})

    def test_what_is_set_up_for_tests_may_fail(self) -> None:
        lines = read(cpython.Lines(), "@failed setUpClass_(m.A) OSError: no\n@failed setUpModule_(m) E: x\n@end -")
        self.assertEqual(lines.run.setups, {"m.A": "OSError: no", "": "E: x"})
        self.assertEqual(lines.run.tests, {})

    def test_a_module_that_does_not_load_is_no_test(self) -> None:
        name = "unittest.loader._FailedTest.test_x"
        lines = read(cpython.Lines(), f"@start {name}\n@failed {name} ImportError: _x\n@end -")
        self.assertEqual((lines.run.setups, lines.run.tests), ({"": "ImportError: _x"}, {}))

    def test_the_test_that_ends_the_program_has_failed(self) -> None:
        lines = read(cpython.Lines(), "@start m.A.a\n@ok m.A.a\n@start m.A.b\nSegmentation fault")
        lines.broke_off("status 139")
        self.assertFalse(lines.ended)
        self.assertEqual(lines.run.tests["m.A.b"].verdict, Verdict.FAILED)
        self.assertEqual(lines.run.tests["m.A.b"].cause, "status 139")


GO = """\
=== RUN   TestOne
--- PASS: TestOne (0.01s)
=== RUN   TestTwo
=== RUN   TestTwo/sub
    two_test.go:7: looked
--- FAIL: TestTwo (0.50s)
    --- FAIL: TestTwo/sub (0.00s)
        two_test.go:9: no such thing
=== RUN   TestLater
=== PAUSE TestLater
=== RUN   TestExec
--- FAIL: TestExec (0.00s)
    exec_test.go:3: fork/exec /bin/true: function not implemented
=== RUN   TestSkip
    x_test.go:1: not here
--- SKIP: TestSkip (0.00s)
=== CONT  TestLater
no end of line--- PASS: TestLater (1.00s)
=== RUN   ExampleX
--- PASS: ExampleX (0.00s)
FAIL
"""


class Go(unittest.TestCase):
    def test_verdicts_with_their_causes(self) -> None:
        output = read(go.Output("p"), GO)
        verdicts = {name.removeprefix("p."): t.verdict.value for name, t in output.run.tests.items()}
        self.assertEqual(
            verdicts,
            {
                "TestOne": "ok",
                "TestTwo": "failed",
                "TestExec": "failed",
                "TestSkip": "skipped",
                "TestLater": "ok",
                "ExampleX": "ok",
            },
        )
        self.assertEqual(output.run.tests["p.TestTwo"].cause, "looked")
        self.assertEqual(output.run.tests["p.TestTwo"].seconds, 0.5)
        self.assertTrue(output.ended)

    def test_a_refused_program_is_told_by_the_failure(self) -> None:
        output = read(go.Output("p"), GO)
        self.assertEqual([name for name, t in output.run.tests.items() if t.process], ["p.TestExec"])

    def test_the_test_that_panics_has_failed(self) -> None:
        output = read(go.Output("p"), "=== RUN   TestA\nfatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1:\n")
        self.assertEqual(output.current(), "TestA")
        output.broke_off("status 2")
        self.assertEqual(output.run.tests["p.TestA"].cause, "fatal error: all goroutines are asleep - deadlock! (status 2)")

    def test_a_panic_after_its_verdict_is_the_cause(self) -> None:
        output = read(go.Output("p"), "=== RUN   TestA\n--- FAIL: TestA (0.00s)\npanic: nil map [recovered]\n")
        output.broke_off("status 2")
        self.assertEqual(output.run.tests["p.TestA"].cause, "panic: nil map [recovered]")
        self.assertFalse(output.ended)

    def test_a_test_that_waits_for_its_turn_is_not_under_way(self) -> None:
        output = read(go.Output("p"), "=== RUN   TestA\n=== PAUSE TestA\n")
        self.assertIsNone(output.current())
        output.broke_off("no end in time")
        self.assertEqual(output.run.tests, {})
