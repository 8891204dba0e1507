# SPDX-License-Identifier: MIT OR Apache-2.0
"""{{name}}: every request runs in a fresh copy of this program, frozen when it waits for the first one."""

import itertools
import sys

sys.path.insert(0, "/app/sdk/python")
import mayfly  # noqa: E402

# Initialise here: import modules, open files, load models. This part runs once.
counted = itertools.count(1)


def page(request):
    # What a request changes is gone before the next one.
    return mayfly.Response(f"Hello from {{name}}: {request.path}, request {next(counted)} of this copy\n")


mayfly.serve(page)
