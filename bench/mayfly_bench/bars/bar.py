# SPDX-License-Identifier: MIT OR Apache-2.0
"""One aim."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One figure. `measure` takes an engine's part of the report and raises LookupError if the run does not have it."""

    name: str
    key: str
    bar: str
    measure: Callable[[dict], float]
    met: Callable[[dict, float], bool]
