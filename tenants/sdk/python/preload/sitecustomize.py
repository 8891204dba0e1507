# SPDX-License-Identifier: MIT OR Apache-2.0
"""With this directory in PYTHONPATH, a program gets ../fresh.py without knowing of it.

If that fails the program does not start: Python itself would say so and go on, and each request would draw the same.
"""

import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
try:
    import fresh  # noqa: F401
except BaseException:
    traceback.print_exc()
    print("mayfly: the hook for freshness failed, so the program is not started", file=sys.stderr, flush=True)
    os._exit(1)

del sys.path[0]
