# SPDX-License-Identifier: MIT OR Apache-2.0
"""The report in short: for the terminal, and as Markdown that a README can quote."""

from collections.abc import Iterable

from . import bars, figures
from .figures import Table
from .runtimes import words as runtimes
from .tenancy import words as tenancy


def terminal(report: dict) -> str:
    """Aligned tables, the bars last, where a reader's eye is."""
    parts = (
        *(figures.wrk_table(report), figures.micro_table(report), tenancy.table(report)),
        *(runtimes.table(report), runtimes.all_cores_table(report), runtimes.failed_table(report), figures.bars_table(report)),
    )
    return "\n\n".join(["", *_opening(report), *map(aligned, filter(None, parts))])


def markdown(report: dict) -> str:
    """The same as Markdown, with the machine that it was measured on."""
    sections = (
        ("Aims", figures.bars_table(report)),
        ("wrk", figures.wrk_table(report)),
        ("Many tenants", tenancy.table(report)),
        ("Runtimes, one connection on one CPU", runtimes.table(report)),
        ("Runtimes, all cores", runtimes.all_cores_table(report)),
        ("Runtimes that failed", runtimes.failed_table(report)),
        ("Micro-benchmarks", figures.micro_table(report)),
        ("Machine and run", figures.host_table(report)),
    )
    return "\n\n".join([*_opening(report), *(f"### {title}\n\n{pipes(table)}" for title, table in sections if table)]) + "\n"


def _opening(report: dict) -> list[str]:
    """The headline, and the warning if there is one."""
    return [words for words in (headline(report), figures.warning(report)) if words]


def headline(report: dict) -> str:
    """One sentence: what a fresh virtual machine for every request costs here."""
    busiest = max(
        (pair for pair in figures.loads_in_order(report) if not pair[0]["pinned"]),
        key=lambda pair: pair[1]["rps"],
        default=None,
    )
    try:
        added, floor = bars.sandbox_cpu_us(report), bars.floor_us(report)
    except LookupError:
        busiest = None
    if not report["wrk"]:
        return "Programs of other runtimes alone were measured."
    if busiest is None:
        return "This run is too short for a headline."
    vanilla, sandboxed = busiest
    return (
        f"A fresh virtual machine for every request adds {figures.number(added)} µs of server CPU, of which "
        f"{figures.number(floor)} µs is the bare KVM_RUN round trip on this {report['host']['kvm']} KVM; "
        f"at {figures.load_name(sandboxed)}: {figures.number(sandboxed['rps'])} requests/s, each in its own machine, against "
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
