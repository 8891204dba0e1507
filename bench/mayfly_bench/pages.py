# SPDX-License-Identifier: MIT OR Apache-2.0
"""The two pages that are compared must be the same page."""

import json
from dataclasses import dataclass

from .errors import BenchError


@dataclass(frozen=True)
class Page:
    """One HTTP response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def check_comparable(vanilla: Page, sandboxed: Page, called: str = "sandboxed") -> None:
    """Checks that both routes answer 200 with the same bytes and the same header names.

    Raises BenchError that names the difference: a benchmark of two different answers says nothing.
    """
    for route, page in (("vanilla", vanilla), (called, sandboxed)):
        if page.status != 200:
            raise BenchError(f"the {route} route answers {page.status}: {_reason(page.body)}")
    if vanilla.body != sandboxed.body:
        raise BenchError(
            f"the routes answer different bytes: vanilla {vanilla.body[:60]!r} ({len(vanilla.body)} bytes), "
            f"{called} {sandboxed.body[:60]!r} ({len(sandboxed.body)} bytes)"
        )
    if difference := set(vanilla.headers) ^ set(sandboxed.headers):
        raise BenchError(f"only one of the routes sends these headers: {', '.join(sorted(difference))}")
    kind = "content-type"
    if vanilla.headers.get(kind) != sandboxed.headers.get(kind):
        raise BenchError(f"the routes differ in {kind}: {vanilla.headers.get(kind)} and {sandboxed.headers.get(kind)}")


def _reason(body: bytes) -> str:
    """Mayfly's errors are JSON with a reason; anything else is shown as it came."""
    try:
        return json.loads(body)["reason"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
