# SPDX-License-Identifier: MIT OR Apache-2.0
"""How figures and tables are worded, for the terminal, Markdown and the page alike.

A table is a list of rows of strings, the heading first.
"""

from .comparison import find
from .engines import WORDS, columns, side_by_side, views
from .routes import SANDBOXED, VANILLA

Table = list[list[str]]
#: At one load: the entries of vanilla and of each engine, with their names.
AtLoad = list[tuple[str, dict]]

#: Keys of `micro` worth a row, with their words. What a run does not hold is left out.
_MICRO = (
    ("floor_us", "floor: a bare round trip to a program", "µs"),
    ("call_us", "call: request in, response out", "µs"),
    ("reset_us", "reset", "µs"),
    ("call_reset_us", "call and reset", "µs"),
    ("exits_per_request", "exits per request", ""),
    ("ioctls_per_request", "ioctls per request, seen by strace", ""),
    ("workset_pages", "work set", "pages"),
    ("reset_ns_per_page", "reset of one page", "ns"),
    ("memcpy_ns_per_page", "memcpy of one page", "ns"),
    ("fork_us", "fork of a worker", "µs"),
    ("create_vm_us", "bare VM with vCPU and memslot, or bare process", "µs"),
    ("worker_private_kib", "private memory of an idle worker", "KiB"),
    ("worker_total_kib", "memory of an idle worker with the kernel's", "KiB"),
    ("worker_served_total_kib", "the same once it has served", "KiB"),
    ("boot_ms", "boot to the first frozen state", "ms"),
)


def number(value: float | int | None) -> str:
    """A figure with three significant digits or so, and thousands set apart."""
    if value is None:
        return "not measured"
    if isinstance(value, int) or abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def load_name(entry: dict) -> str:
    """`c8`, or `c1 pinned`."""
    return f"c{entry['connections']}{' pinned' if entry['pinned'] else ''}"


def loads_in_order(report: dict) -> list[AtLoad]:
    """The entries of each load: vanilla, then the engines."""
    parts = views(report)
    loads = []
    for vanilla in (entry for entry in next(iter(parts.values()))["wrk"] if entry["route"] == VANILLA):
        load = vanilla["connections"], vanilla["pinned"]
        found = {engine: find(part["wrk"], SANDBOXED, *load) for engine, part in parts.items()}
        sandboxed = [(engine, entry) for engine, entry in found.items() if entry is not None]
        if sandboxed:
            loads.append([(VANILLA, vanilla), *sandboxed])
    return loads


def wrk_table(report: dict) -> Table:
    """Throughput, CPU and latency of every load, vanilla and the engines one under the other."""
    rows = [["load", "route", "requests/s", "server CPU µs", "p50 µs", "p75 µs", "p90 µs", "p99 µs", "errors"]]
    for at_load in loads_in_order(report):
        for name, entry in at_load:
            figures = (entry[key] for key in ("rps", "cpu_us", "p50_us", "p75_us", "p90_us", "p99_us", "errors"))
            rows.append([load_name(entry), name, *map(number, figures)])
    return rows if len(rows) > 1 else []


def bars_table(report: dict) -> Table:
    """What was aimed at and what was reached, engine by engine."""
    return side_by_side({engine: engine_bars_table(part) for engine, part in views(report).items()}, 0)


def engine_bars_table(part: dict) -> Table:
    """The same of one engine."""
    rows = [["figure", "bar", "measured", ""]]
    for bar in part["bars"]:
        verdict = "not measured" if bar["measured"] is None else "met" if bar["met"] else "NOT met"
        rows.append([bar["name"], bar["bar"], "" if bar["measured"] is None else number(bar["measured"]), verdict])
    return rows


def micro_table(report: dict) -> Table:
    """The micro-benchmarks, with a column for each engine."""
    return columns({engine: _micro_table(part["micro"]) for engine, part in views(report).items()}, 2, 2)


def _micro_table(micro: dict) -> Table:
    if not micro:
        return []
    rows = [["figure", "unit", "measured"]]
    rows += [[words, unit, number(micro[key])] for key, words, unit in _MICRO if micro.get(key) is not None]
    for name, value in micro.get("latency_us", {}).items():
        rows.append([f"call and reset, {name}", "µs", number(value)])
    for key, words in (("other_syscalls", "other calls of the serving thread"), ("background_syscalls", "calls of other threads")):
        calls = micro.get(key, {})
        listed = ", ".join(f"{name} {count}" for name, count in sorted(calls.items())) or "none"
        rows.append([f"{words}, in {number(micro.get('strace_requests'))} requests", "", listed])
    return rows


def host_table(report: dict) -> Table:
    """The machine and the run."""
    host, run = report["host"], report["run"]
    return [
        ["what", "is"],
        ["CPU", f"{host['cpu']}, {host['cores']} cores"],
        ["kernel", host["kernel"]],
        *([WORDS.get(name, name), _engine(about)] for name, about in host.get("engines", {}).items()),
        ["auto", f"{auto.get('engine')}: {auto.get('why', '')}"] if (auto := host.get("auto")) else ["KVM", host["kvm"]],
        *([f"mitigation: {name}", state] for name, state in host["mitigations"].items()),
        ["Drogon", host["drogon"]],
        ["allocator", host["allocator"]],
        ["commit", run["commit"]],
        ["started", run["started"]],
        ["rounds", f"{run['rounds']} of {run['seconds_per_round']} s each, {run['minutes']} minutes in all"],
        ["page", f"{run['page_bytes']} bytes, the same from all routes"],
        ["priority", run["priority"]],
        ["noise", noise(report)],
    ]


def _engine(about: dict) -> str:
    return f"{'' if about['usable'] else 'cannot be used: '}{about['details']}"


#: Share of the processors that others may use before a report says that it should not be quoted, in percent.
_QUIET_PERCENT = 10


def noise(report: dict) -> str:
    """What else the machine did: the share of its processors that neither server nor wrk used, over the rounds."""
    shares = _others(report)
    if not shares:
        return "not measured"
    return (
        f"others used {number(sum(shares) / len(shares))} % of the processors on average, "
        f"{number(max(shares))} % in the worst round; load average before: {number(report['run']['load_before'])}"
    )


def warning(report: dict) -> str | None:
    """What a reader must know first: that the machine was busy with other things, if it was."""
    shares = _others(report)
    if not shares or sum(shares) / len(shares) <= _QUIET_PERCENT:
        return None
    return (
        f"The machine was busy: others used {sum(shares) / len(shares):.0f} % of its processors. Times and requests/s are "
        "worse than this machine's own; differences between the routes are exaggerated, because the route that needs more time is interrupted more often."
    )


def _others(report: dict) -> list[float]:
    samples = []
    for part in views(report).values():
        samples += [sample for entry in part["wrk"] for sample in entry["rounds"]]
        for seen in (seen for modes in part.get("runtimes", {}).values() for seen in modes.values()):
            for load in (seen, seen.get("all_cores", {})):
                samples += [sample for rounds in load.get("rounds", {}).values() for sample in rounds]
    return [sample["others_percent"] for sample in samples]
