# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is too old for the SDK and the hooks says so, and a hook that fails does not leave a server without it
(docs/guest-sdk.md).
"""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

from samples import OUT, PYTHON, environment

NODE_16, DENO_2_7 = f"{OUT}/versions/bin/node-16", f"{OUT}/versions/bin/deno-2.7"


def output(command: list, **more: str) -> tuple:
    """The status, and what was said on standard error."""
    name = "deno" if command[0] == DENO_2_7 else "other"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(name, **more))
    return done.returncode, done.stdout, done.stderr


class TooOld(unittest.TestCase):
    def refuses(self, command, message, **more):
        status, said, error = output(command, **more)
        self.assertEqual((status, said), (1, ""), error)
        self.assertIn(message, error)

    def test_node(self):
        message = "Mayfly's SDK and hook for Node.js need Node.js 18 or newer; this is 16.20.2"
        for module in ("mayfly.mjs", "fresh.mjs"):
            with self.subTest(module):
                code = f"import('{OUT}/sdk/node/{module}').then(() => console.log('went on'))"
                self.refuses([NODE_16, "--eval", code], message)

    def test_deno(self):
        message = "Mayfly's SDK and hook for Deno need Deno 2.8.3 or newer; this is 2.7.14"
        self.refuses([DENO_2_7, "run", "--allow-ffi", f"{OUT}/deno/sdk.js"], message)
        hook = ["--allow-net", "--allow-read=/dev/urandom", "--preload", f"{OUT}/sdk/deno/fresh.js"]
        self.refuses([DENO_2_7, "run", *hook, f"{OUT}/deno/server.js", "0"], message)

    def test_python(self):
        """There is no old Python here, so the test makes this one report 3.8."""
        message = "Mayfly's SDK and hook for Python need Python 3.9 or newer; this is 3.8.18"
        for module in ("mayfly", "fresh"):
            with self.subTest(module):
                old = f"import sys; sys.path.insert(0, '{OUT}/sdk/python'); sys.version_info = (3, 8, 18)"
                self.refuses([PYTHON, "-B", "-c", f"{old}; import {module}; print('went on')"], message)


class Older(unittest.TestCase):
    def test_pythons_hook_where_a_generator_hashes_its_arguments(self):
        """As random.Random does before 3.11, of which there is none here."""
        code = f"""if True:
            import random, sys
            class Old(random.Random):
                def __new__(cls, *seeds):
                    for seed in seeds:
                        hash(seed)
                    return super().__new__(cls)
            random.Random = Old
            sys.path.insert(0, "{OUT}/sdk/python")
            import fresh
            print(0 <= random.random() < 1)
        """
        self.assertEqual(output([PYTHON, "-B", "-c", code]), (0, "True\n", ""))


class FailingHook(unittest.TestCase):
    def test_pythons_program_is_not_started_without_it(self):
        """Python says of an error in sitecustomize that there was one, and goes on."""
        with tempfile.TemporaryDirectory() as directory:
            sdk = pathlib.Path(directory, "sdk")
            shutil.copytree(f"{OUT}/sdk/python", sdk / "python")  # Without ../lib.
            preload = str(sdk / "python/preload")
            status, said, error = output([PYTHON, "-B", "-c", "print('went on')"], PYTHONPATH=preload)
        self.assertEqual((status, said), (1, ""), error)
        self.assertIn("libmayfly-fresh.so: cannot open shared object file", error)
        self.assertIn("mayfly: the hook for freshness failed, so the program is not started", error)


if __name__ == "__main__":
    unittest.main()
