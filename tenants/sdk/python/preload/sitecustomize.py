# SPDX-License-Identifier: MIT OR Apache-2.0
"""With this directory in PYTHONPATH, a program gets ../fresh.py without knowing of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fresh  # noqa: E402, F401

del sys.path[0]
