# SPDX-License-Identifier: MIT OR Apache-2.0
"""The report in short: for the terminal, and as Markdown that a README can quote."""

from collections.abc import Callable, Iterable

from . import bars, figures
from .engines import FLOORS, side_by_side, views
from .figures import Table
from .routes import VANILLA
from .runtimes import words as runtimes
from .tenancy import words as tenancy

#: What a request has to itself.
_FRESH = {"kvm": "A fresh virtual machine", "process": "A fresh process"}


def terminal(report: dict) -> str:
    """Aligned tables, the bars last, where a reader's eye is."""
    return "\n\n".join(["", *_opening(report), *map(aligned, filter(None, [*tables(report).values(), figures.bars_table(report)]))])


def markdown(report: dict) -> str:
    """The same as Markdown, with the machine that it was measured on."""
    sections = {"Aims": figures.bars_table(report), **tables(report), "Machine and run": figures.host_table(report)}
    return "\n\n".join([*_opening(report), *(f"### {title}\n\n{pipes(table)}" for title, table in sections.items() if table)]) + "\n"


def tables(report: dict) -> dict[str, Table]:
    """The figures' tables by title, with all engines in each."""

    def all_engines(table: Callable[[dict], Table], keys: int) -> Table:
        return side_by_side({engine: table(part) for engine, part in views(report).items()}, keys)

    return {
        "wrk": figures.wrk_table(report),
        "Micro-benchmarks": figures.micro_table(report),
        "Many tenants": all_engines(tenancy.table, 1),
        "Runtimes, one connection on one CPU": all_engines(runtimes.table, 2),
        "Runtimes, all cores": all_engines(runtimes.all_cores_table, 2),
        "Runtimes that failed": all_engines(runtimes.failed_table, 2),
    }


def _opening(report: dict) -> list[str]:
    """The headlines, and the warning if there is one."""
    return [words for words in (*headlines(report), figures.warning(report)) if words]


def headlines(report: dict) -> list[str]:
    """A sentence for each engine: what a fresh sandbox for every request costs here."""
    parts = views(report)
    if not any(part["wrk"] for part in parts.values()):
        return ["Programs of other runtimes alone were measured."]
    found = [words for engine, part in parts.items() if (words := _headline(report, engine, part))]
    return found or ["This run is too short for a headline."]


def _headline(report: dict, engine: str, part: dict) -> str | None:
    rates = [
        (names[engine], names[VANILLA])
        for names in map(dict, figures.loads_in_order(report))
        if engine in names and not names[engine]["pinned"]
    ]
    try:
        sandboxed, vanilla = max(rates, key=lambda pair: pair[0]["rps"])
        added, floor = bars.sandbox_cpu_us(part), bars.floor_us(part)
    except (LookupError, ValueError):
        return None
    kind = f" on this {report['host']['kvm']} KVM" if engine == "kvm" else ""
    return (
        f"{_FRESH[engine]} for every request adds {figures.number(added)} µs of server CPU, of which "
        f"{figures.number(floor)} µs is the {FLOORS[engine]}{kind}; "
        f"at {figures.load_name(sandboxed)}: {figures.number(sandboxed['rps'])} requests/s, each in its own sandbox, against "
        f"{figures.number(vanilla['rps'])} without."
    )


def aligned(table: Table) -> str:
    """A table in columns: the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    to_the_right = [is_figures(row[column] for row in table[1:]) for column in range(len(table[0]))]

    def line(row: list[str]) -> str:
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_the_right, strict=True)
        )
        return "  ".join(cells).rstrip()

    heading, *rows = map(line, table)
    return "\n".join([heading, "-" * len(heading), *rows])


def pipes(table: Table) -> str:
    """A table in Markdown."""
    def line(row: list[str]) -> str:
        return "| " + " | ".join(row) + " |"

    heading, *rows = table
    return "\n".join([line(heading), line(["---"] * len(heading)), *map(line, rows)])


def is_figures(cells: Iterable[str]) -> bool:
    """Whether a column holds figures alone (and gaps), at least one."""
    kinds = [cell.replace(",", "").replace(".", "").isdigit() for cell in cells if cell]
    return bool(kinds) and all(kinds)
