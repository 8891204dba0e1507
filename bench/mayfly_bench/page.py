# SPDX-License-Identifier: MIT OR Apache-2.0
"""report.html: one file, no script, nothing loaded from elsewhere."""

from html import escape
from pathlib import Path
from string import Template

from . import bars, charts, figures, summary
from .charts import Part
from .comparison import find
from .figures import Table, number
from .runtimes import words as runtimes
from .tenancy import words as tenancy

_TEMPLATE = Path(__file__).with_name("page.html")
_LEGEND = '<span class="legend"><span><i class="vanilla"></i>vanilla</span><span><i class="sandboxed"></i>sandboxed</span></span>'


def render(report: dict) -> str:
    """The page for one report."""
    run = report["run"]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        started=escape(run["started"]),
        commit=escape(run["commit"]),
        headline=escape(summary.headline(report)),
        warning=_warning(report),
        tiles=_tiles(report),
        bars=_bars(report),
        cost=_cost(report),
        charts=_charts(report),
        wrk=_table(figures.wrk_table(report), row_class=1),
        tenancy=_tenancy(report),
        runtimes=_runtimes(report),
        micro=_table(figures.micro_table(report)),
        host=_table(figures.host_table(report)),
        rounds=run["rounds"],
        page_bytes=number(run["page_bytes"]),
        strace_requests=number(report["micro"].get("strace_requests")),
    )


def _warning(report: dict) -> str:
    words = figures.warning(report)
    return f'<p class="warning">{escape(words)}</p>' if words else ""


def _tiles(report: dict) -> str:
    """The four most important figures. A tile is left out if this run lacks its figure."""
    micro = report["micro"]
    wanted = (
        (lambda: number(micro["call_reset_us"] - micro["floor_us"]), "µs", "call and reset above the bare KVM_RUN round trip"),
        (lambda: number(bars.sandbox_cpu_us(report)), "µs", "server CPU that the sandbox adds to a request, c1 on one CPU"),
        (lambda: f"{bars.throughput_ratio(report) * 100:.0f}", "%", "of vanilla Drogon's requests/s at c8"),
        (lambda: number(micro["worker_private_kib"]), "KiB", "private memory of an idle worker"),
    )
    tiles = []
    for figure, unit, words in wanted:
        try:
            tiles.append(f'<div class="tile"><b>{figure()} <small>{unit}</small></b><span>{words}</span></div>')
        except (LookupError, ZeroDivisionError):
            continue
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _bars(report: dict) -> str:
    """The aims, each with its verdict in words and colour."""
    heading, *rows = figures.bars_table(report)
    cells = []
    for row, bar in zip(rows, report["bars"], strict=True):
        kind = "unmeasured" if bar["measured"] is None else "met" if bar["met"] else "missed"
        name, aim, measured, verdict = map(escape, row)
        cells.append(
            f'<tr><td>{name}<br><code class="unmeasured">{escape(bar["key"])}</code></td><td>{aim}</td>'
            f'<td class="figure">{measured}</td><td class="verdict {kind}">{verdict}</td></tr>'
        )
    titles = "".join(f"<th{' class=figure' if title == 'measured' else ''}>{escape(title)}</th>" for title in heading)
    return f'<div class="table"><table><tr>{titles}</tr>{"".join(cells)}</table></div>'


def _cost(report: dict) -> str:
    """Where the server's CPU time of one request goes: Drogon's part, the floor, and what Mayfly adds to it."""
    pinned = find(report["wrk"], "vanilla", 1, pinned=True)
    if pinned is None:
        return ""
    vanilla, floor = pinned["cpu_us"], bars.floor_us(report)
    rest = max(0.0, bars.sandbox_cpu_us(report) - floor)
    drawing = charts.stacked(
        (
            ("vanilla", [Part("Drogon and the kernel's network", vanilla, "vanilla")]),
            (
                "sandboxed",
                [
                    Part("Drogon and the kernel's network", vanilla, "vanilla"),
                    Part("bare KVM_RUN round trip", floor, "floor"),
                    Part("the rest of the sandbox: routing, request in, program, response out, reset", rest, "sandboxed"),
                ],
            ),
        ),
        "µs",
    )
    legend = (
        '<span class="legend"><span><i class="vanilla"></i>Drogon and network</span>'
        '<span><i class="floor"></i>bare KVM_RUN</span><span><i class="sandboxed"></i>all else that the sandbox does</span></span>'
    )
    return (
        "<h2>Where the CPU time of a request goes</h2>"
        '<p class="note">Server CPU per request at c1, server and wrk on one CPU.</p>'
        f"<figure><figcaption>Server CPU per request, µs{legend}</figcaption>{drawing}</figure>"
    )


def _charts(report: dict) -> str:
    """Throughput, CPU and latency over the loads."""
    pairs = figures.loads_in_order(report)
    if not pairs:
        return ""
    drawings = (
        ("Requests per second", charts.columns(pairs, "rps", "requests/s")),
        ("Server CPU per request, µs", charts.columns(pairs, "cpu_us", "µs of server CPU")),
        ("Latency, µs: median (dot), p75, p90, p99 (ticks), log scale", charts.latencies(pairs)),
    )
    return "".join(
        f"<figure><figcaption>{escape(words)}{_LEGEND}</figcaption>{drawing}</figure>" for words, drawing in drawings
    )


def _tenancy(report: dict) -> str:
    """The figures on many tenants, where they were measured."""
    table = tenancy.table(report)
    if not table:
        return ""
    return (
        "<h2>Many tenants</h2>"
        '<p class="note">One server, as many loops as cores. Ratios are of requests/s, both sides in turn; each figure is the median of '
        "its rounds, beside the lowest and the highest.</p>" + _table(table)
    )


def _runtimes(report: dict) -> str:
    """Programs of other runtimes, where they were measured; first of all what could not be."""
    parts = []
    if failed := runtimes.failed_table(report):
        parts.append('<p class="warning">Not all of this section could be measured, or it went wrong on the way.</p>' + _table(failed))
    if table := runtimes.table(report):
        parts.append(
            '<p class="note">One connection, server and wrk on one CPU; each row&#x27;s program answers Hello World! It is reset after every '
            "request, kept (one worker that is never reset), and native: the runtime&#x27;s own server without a sandbox, asked by wrk "
            "directly. Vanilla is a C++ handler of the same Drogon server. All four in turn, medians.</p>" + _table(table)
        )
    if table := runtimes.all_cores_table(report):
        parts.append('<p class="note">On all cores, as many Drogon loops as there are.</p>' + _table(table))
    return f"<h2>Runtimes</h2>{''.join(parts)}" if parts else ""


def _table(table: Table, row_class: int | None = None) -> str:
    """A table; columns of figures are set to the right, and a row may take its class from one of its cells."""
    if not table:
        return '<p class="note">Not measured in this run.</p>'
    heading, *rows = table
    right = [summary.is_figures(row[column] for row in rows) for column in range(len(heading))]

    def cells(kind: str, row: list[str]) -> str:
        return "".join(
            f"<{kind}{' class=figure' if figure else ''}>{escape(cell)}</{kind}>"
            for cell, figure in zip(row, right, strict=True)
        )

    def opening(row: list[str]) -> str:
        return "<tr>" if row_class is None else f'<tr class="{escape(row[row_class])}">'

    body = "".join(f"{opening(row)}{cells('td', row)}</tr>" for row in rows)
    return f'<div class="table"><table><tr>{cells("th", heading)}</tr>{body}</table></div>'
