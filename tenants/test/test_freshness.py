# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two requests to a program that is reset share no random number (docs/freshness.md).

Natively: the fake host serves each request by a fork of the process, which the process does not notice. What is not
taken care of then repeats, which these tests show too, so that they would notice if a runtime changed its ways.
"""

import json
import unittest

from samples import DENO, NODE, OTHER_DENOS, OTHER_NODES, OUT, PYTHON, each, environment, runtime
from tenant import Request, run

PRELOAD = f"{OUT}/test/fakehost.so:{OUT}/test/unforked.so"
DENO_ARGUMENTS = ["run", "--allow-ffi", "--allow-env=MAYFLY_LIBRARY", "--allow-read=/dev/urandom", f"{OUT}/test/freshness/deno.js"]
PROGRAMS = {
    **{name: [deno, *DENO_ARGUMENTS] for name, deno in {"deno": DENO, **OTHER_DENOS}.items()},
    **{name: [node, f"{OUT}/test/freshness/node.mjs"] for name, node in {"node": NODE, **OTHER_NODES}.items()},
    "python": [PYTHON, "-B", f"{OUT}/test/freshness/python.py"],
}  # fmt: skip
# What no SDK and no hook can reach: documented.
BEYOND = {"deno": set(), "node": set(), "python": {"a Random of the program's"}}
# Sources that are fresh by themselves.
FRESH_BY_ITSELF = {"deno": set(), "node": set(), "python": {"random.SystemRandom", "os.urandom", "secrets", "uuid.uuid4"}}


def draws(name: str, mode: str, preload: str = PRELOAD, **more: str) -> tuple:
    """What three requests draw: the names of the sources, and of those that gave any two requests the same."""
    program, *args = PROGRAMS[name]
    requests = [Request(id=n, entropy=bytes([n]) * 32) for n in (1, 2, 3)]
    given = environment(name, LD_PRELOAD=preload, FAKEHOST_FORK="1", **more)
    result = run(program, requests, *args, mode, env=given)
    drawn = [json.loads(r.body) for r in result.responses]
    assert len(drawn) == 3 and result.status == 0, result.stderr.decode()
    same = {source for source in drawn[0] if len({json.dumps(draw[source]) for draw in drawn}) < 3}
    return set(drawn[0]), same


class Freshness(unittest.TestCase):
    @each(PROGRAMS)
    def test_by_the_sdk_nothing_repeats(self, name):
        _, same = draws(name, "sdk")
        self.assertEqual(same, BEYOND[runtime(name)])

    @each(PROGRAMS)
    def test_with_the_hook_for_servers_nothing_repeats(self, name):
        # The library that feeds requests leaves OpenSSL alone here, so that it is the hook that is tested.
        hook = f":{OUT}/sdk/lib/libmayfly-fresh.so" if runtime(name) == "node" else ""
        _, same = draws(name, "server", PRELOAD + hook, MAYFLY_LIBRARY=f"{OUT}/test/libmayfly-bare.so")
        self.assertEqual(same, BEYOND[runtime(name)])

    @each(PROGRAMS)
    def test_without_either_the_snapshot_repeats_itself(self, name):
        sources, same = draws(name, "frozen", MAYFLY_LIBRARY=f"{OUT}/test/libmayfly-bare.so")
        self.assertEqual(same, sources - FRESH_BY_ITSELF[runtime(name)])


if __name__ == "__main__":
    unittest.main()
