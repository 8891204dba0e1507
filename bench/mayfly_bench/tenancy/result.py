# SPDX-License-Identifier: MIT OR Apache-2.0
"""A figure and the rounds that it comes from."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """One figure.

    `values` is the figure as each round alone would have it, `rounds` what was measured in them, and `failed` the
    requests that went wrong where none may.
    """

    value: float
    values: Sequence[float]
    rounds: Sequence[dict]
    failed: int = 0
    more: dict = field(default_factory=dict)

    @classmethod
    def median(cls, key: str, rounds: Sequence[dict], failed: int = 0, **more: object) -> "Result":
        """The median over the rounds, each of which has the figure under `key`."""
        values = [seen[key] for seen in rounds]
        return cls(statistics.median(values), values, rounds, failed, dict(more))

    def as_report(self) -> dict:
        """What the report's `tenancy_rounds` has under the figure's name."""
        return {
            "median": statistics.median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "failed_requests": self.failed,
            **self.more,
            "rounds": list(self.rounds),
        }
