# SPDX-License-Identifier: MIT OR Apache-2.0
"""The sample tenants of other runtimes: how to start each, in both ways. Paths are those of what was built."""

import functools
import os

OUT = os.environ["OUT"]
DENO = f"{OUT}/deno/bin/deno"
NODE = f"{OUT}/node/bin/node"
PYTHON = "/usr/bin/python3"
# Other versions, of which what is too old says so (test_versions.py); the samples' are pinned by their lockfiles.
OTHER_NODES = {name: f"{OUT}/versions/bin/{name}" for name in ("node-18", "node-22", "node-24", "node-26")}
OTHER_DENOS = {name: f"{OUT}/versions/bin/{name}" for name in ("deno-2.8",)}
# Without a cache, and so without a database; without colours in what it prints.
DENO_ENVIRONMENT = {"DENO_DIR": "/proc/none", "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "HOME": "/proc/none"}

# Unmodified servers; the port is the last argument.
SERVERS = {
    "deno": [DENO, "run", "--allow-net", f"{OUT}/deno/server.js"],
    "node": [NODE, f"{OUT}/node/server.mjs"],
    "python": [PYTHON, "-B", f"{OUT}/python/server.py"],
    "go": [f"{OUT}/go/bin/server"],
    "rust": [f"{OUT}/rust/bin/server"],
}

# The same servers as they are started for freshness.
FRESH_SERVERS = {
    **{
        name: [
            deno, "run", "--allow-net", "--allow-read=/dev/urandom", "--preload", f"{OUT}/sdk/deno/fresh.js",
            f"{OUT}/deno/server.js",
        ]
        for name, deno in {"deno": DENO, **OTHER_DENOS}.items()
    },
    **{
        name: [node, "--import", f"{OUT}/sdk/node/fresh.mjs", f"{OUT}/node/server.mjs"]
        for name, node in {"node": NODE, **OTHER_NODES}.items()
    },
    "python": SERVERS["python"],
}  # fmt: skip
FRESH_ENVIRONMENT = {
    "node": {"LD_PRELOAD": f"{OUT}/sdk/lib/libmayfly-fresh.so"},
    "python": {"PYTHONPATH": f"{OUT}/sdk/python/preload"},
}

# Programs by the SDK.
BY_SDK = {
    "deno": [DENO, "run", "--allow-ffi", f"{OUT}/deno/sdk.js"],
    "node": [NODE, f"{OUT}/node/sdk.mjs"],
    "python": [PYTHON, "-B", f"{OUT}/python/sdk.py"],
    "rust": [f"{OUT}/rust/bin/sdk"],
}

LIGHTTPD = [f"{OUT}/lighttpd/bin/lighttpd", "-D", "-f", f"{OUT}/lighttpd/lighttpd.conf", "-m", f"{OUT}/lighttpd/lib/modules"]
LIGHTTPD_ENVIRONMENT = {"LD_LIBRARY_PATH": f"{OUT}/lighttpd/lib", "ROOT": f"{OUT}/lighttpd/www"}


def runtime(name: str) -> str:
    """The runtime's name without the version."""
    return name.partition("-")[0]


def environment(name: str, **more: str) -> dict:
    """What a sample is started with: nothing of the caller's."""
    given = {"PATH": "/usr/bin:/bin", **more}
    return given | DENO_ENVIRONMENT if runtime(name) == "deno" else given


def each(names):
    """A test method that is called with each of the names."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for name in names:
                with self.subTest(name):
                    test(self, name)

        return run

    return decorate
