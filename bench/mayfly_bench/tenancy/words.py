# SPDX-License-Identifier: MIT OR Apache-2.0
"""The figures on many tenants in words, for all forms of the report."""

import statistics
from collections.abc import Callable

from ..figures import Table, number

_Rounds = list[dict]


def table(report: dict) -> Table:
    """A row for each figure: the median, the range over its rounds, and what it rests on. Empty where none was
    measured.
    """
    rounds = report.get("tenancy_rounds")
    if rounds is None:
        return []
    rows = [["figure", "median", "lowest", "highest", "of"]]
    for name, words, describe in _FIGURES:
        if (seen := rounds.get(name)) is not None:
            rows.append([words, *(number(seen[key]) for key in ("median", "min", "max")), describe(seen)])
    for key, words in (("by_path", "path"), ("by_host", "host")):
        if (routes := rounds.get("routes", {}).get(key)) is not None:
            times = ", ".join(
                f"{number(routes[column])} {where}"
                for column, where in (("one_ns", "among one"), ("many_ns", "one of 10,000"), ("many_in_turn_ns", "10,000 in turn"))
            )
            rows.append([f"tenant found by {words}, ns", number(routes["many_ns"]), "", "", times])
    return rows


def _middle(rounds: _Rounds, value: Callable[[dict], float]) -> str:
    return number(statistics.median(value(round_) for round_ in rounds))


def _sides(above: str, below: str) -> Callable[[dict], str]:
    def describe(seen: dict) -> str:
        sides = ((name, _middle(seen["rounds"], lambda round_: round_[side]["rps"])) for name, side in ((above, "above"), (below, "below")))
        words = [f"{name}: {rps} requests/s" for name, rps in sides]
        if (start := seen.get("start")) is not None:
            words.append(f"{number(start['tenants'])} tenants are listened for after {number(start['listening_s'])} s")
            words.append(f"have a worker on every loop after {number(start['all_workers_s'])} s")
            words.append(f"and were called often enough to be warm after {number(start['all_called_s'])} s")
        return ", ".join([*words, *_failed(seen)])

    return describe


def _overhead(seen: dict) -> str:
    return f"equal workers differ by {_middle(seen['rounds'], lambda round_: round_['overhead_equals_ns'])} ns"


def _idle(seen: dict) -> str:
    megabytes = (_middle(seen["rounds"], lambda round_: round_[side]["private"] / 1024) for side in ("with", "without"))
    started = _middle(seen["rounds"], lambda round_: round_["with"]["started_s"])
    many, none = megabytes
    return f"{number(seen['tenants'])} tenants: {many} MiB, none: {none} MiB, private to the server; it starts in {started} s"


def _neighbour(seen: dict) -> str:
    def p99(route: str, when: str) -> str:
        return _middle(seen["rounds"], lambda round_: round_[when][route]["p99_us"] / 1000)

    words = [f"p99 of {route}: {p99(route, 'quiet')} ms alone, {p99(route, 'noisy')} beside A" for route in ("B", "vanilla")]
    busy = _middle(seen["rounds"], lambda round_: round_["quiet"]["busy_percent"])
    spins = sum(sum(round_["neighbour"].values()) for round_ in seen["rounds"])
    words.append(f"A was answered {number(spins)} times")
    words.append(f"without A {busy} % of the processors were busy")
    return ", ".join([*words, *_failed(seen)])


def _reloads(seen: dict) -> str:
    (memory_before, memory_after), (before, after) = seen["pss_kib"], seen["descriptors"]
    wrong = [f"{name.replace('_', ' ')}: {number(count)}" for name, count in seen["counts"].items() if count]
    return ", ".join(
        [
            f"{number(seen['reloads'])} reloads in {number(seen['seconds'])} s, {number(seen['answers'])} answers meanwhile",
            f"memory {number(memory_before)} KiB, then {number(memory_after)}",
            f"descriptors {number(before)}, then {number(after)}",
            *wrong,
        ]
    )


def _failed(seen: dict) -> list[str]:
    return [f"FAILED requests: {number(seen['failed_requests'])}"] if seen["failed_requests"] else []


_FIGURES = (
    ("round_robin_1000_over_1", "many tenants in turn / one", _sides("many", "one")),
    ("counter_over_hello", "shared memory / without", _sides("counter", "hello")),
    ("stateful_over_ephemeral", "state kept / reset, c1", _sides("kept", "reset")),
    ("overhead_ns", "routing, limits, metering, ns", _overhead),
    ("idle_tenant_kib", "idle tenant, KiB", _idle),
    ("noisy_neighbour_p99_ms", "rise of the p99, ms", _neighbour),
    ("reload_failures", "failures in reloads", _reloads),
)
