# SPDX-License-Identifier: MIT OR Apache-2.0
"""The one way in which a run of the suites gives up."""


class ConformanceError(Exception):
    """A run that cannot go on. The message says what is wrong and what to do about it."""
