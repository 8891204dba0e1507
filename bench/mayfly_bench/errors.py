# SPDX-License-Identifier: MIT OR Apache-2.0
"""The one way in which the benchmark gives up."""


class BenchError(Exception):
    """A run that cannot go on. The message says what is wrong and what to do about it."""
