# SPDX-License-Identifier: MIT OR Apache-2.0
"""report.html: one file, no script, nothing loaded from elsewhere."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from . import bars, charts, figures, summary
from .charts import Part
from .comparison import find
from .engines import FLOORS, WORDS, views
from .figures import Table, number
from .routes import VANILLA

_TEMPLATE = Path(__file__).with_name("page.html")


def render(report: dict) -> str:
    """The page for one report."""
    run, tables = report["run"], summary.tables(report)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        started=escape(run["started"]),
        commit=escape(run["commit"]),
        headline="".join(f'<p class="lead">{escape(words)}</p>' for words in summary.headlines(report)),
        warning=_warning(report),
        tiles=_tiles(report),
        bars=_bars(report),
        cost=_cost(report),
        charts=_charts(report),
        wrk=_table(tables["wrk"], row_class=1),
        tenancy=_tenancy(tables),
        runtimes=_runtimes(tables),
        micro=_table(tables["Micro-benchmarks"]),
        host=_table(figures.host_table(report)),
        rounds=run["rounds"],
        page_bytes=number(run["page_bytes"]),
        strace_requests=number(report["micro"].get("strace_requests")),
    )


def _warning(report: dict) -> str:
    words = figures.warning(report)
    return f'<p class="warning">{escape(words)}</p>' if words else ""


def _tiles(report: dict) -> str:
    """The four most important figures of each engine."""
    return "".join(_engine_tiles(engine, part) for engine, part in views(report).items())


def _engine_tiles(engine: str, part: dict) -> str:
    """A tile is left out if this run lacks its figure."""
    micro = part["micro"]
    wanted = (
        (lambda: number(micro["call_reset_us"] - micro["floor_us"]), "µs", f"call and reset above the {FLOORS[engine]}"),
        (lambda: number(bars.sandbox_cpu_us(part)), "µs", "server CPU that the sandbox adds to a request, c1 on one CPU"),
        (lambda: f"{bars.throughput_ratio(part) * 100:.0f}", "%", "of vanilla Drogon's requests/s at c8"),
        (lambda: number(micro["worker_private_kib"]), "KiB", "private memory of an idle worker"),
    )
    tiles = []
    for figure, unit, words in wanted:
        try:
            tiles.append(f'<div class="tile"><b>{figure()} <small>{unit}</small></b><span>{words}</span></div>')
        except (LookupError, ZeroDivisionError):
            continue
    return f'<h3>{_name(engine)}</h3><div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _name(engine: str) -> str:
    """What headings call an engine."""
    words = escape(WORDS.get(engine, engine))
    return f'<span class="engine"><i class="{escape(engine)}"></i>{words[0].upper()}{words[1:]}</span>'


def _bars(report: dict) -> str:
    """The aims of each engine, each with its verdict in words and colour."""
    return "".join(f"<h3>{_name(engine)}</h3>{_engine_bars(part)}" for engine, part in views(report).items())


def _engine_bars(part: dict) -> str:
    heading, *rows = figures.engine_bars_table(part)
    cells = []
    for row, bar in zip(rows, part["bars"], strict=True):
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
    parts = views(report)
    pinned = find(next(iter(parts.values()))["wrk"], VANILLA, 1, pinned=True)
    if pinned is None:
        return ""
    drogon = Part("Drogon and the kernel's network", pinned["cpu_us"], VANILLA)
    rows = [(VANILLA, [drogon])]
    for engine, part in parts.items():
        floor = bars.floor_us(part)
        rest = max(0.0, bars.sandbox_cpu_us(part) - floor)
        words = "the rest of the sandbox: routing, request in, program, response out, reset"
        rows.append((engine, [drogon, Part(FLOORS[engine], floor, "floor"), Part(words, rest, engine)]))
    legend = _legend([(VANILLA, "Drogon and network"), ("floor", "a bare round trip"), *((name, f"all else on {name}") for name in parts)])
    return (
        "<h2>Where the CPU time of a request goes</h2>"
        '<p class="note">Server CPU per request at c1, server and wrk on one CPU.</p>'
        f"<figure><figcaption>Server CPU per request, µs{legend}</figcaption>{charts.stacked(rows, 'µs')}</figure>"
    )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: each class with its words."""
    return f'<span class="legend">{"".join(f"<span><i class={class_}></i>{escape(words)}</span>" for class_, words in entries)}</span>'


def _charts(report: dict) -> str:
    """Throughput, CPU and latency over the loads."""
    loads = figures.loads_in_order(report)
    if not loads:
        return ""
    legend = _legend([(name, name) for name in (VANILLA, *views(report))])
    drawings = (
        ("Requests per second", charts.columns(loads, "rps", "requests/s")),
        ("Server CPU per request, µs", charts.columns(loads, "cpu_us", "µs of server CPU")),
        ("Latency, µs: median (dot), p75, p90, p99 (ticks), log scale", charts.latencies(loads)),
    )
    return "".join(
        f"<figure><figcaption>{escape(words)}{legend}</figcaption>{drawing}</figure>" for words, drawing in drawings
    )


def _tenancy(tables: dict[str, Table]) -> str:
    """The figures on many tenants, where they were measured."""
    if not (table := tables["Many tenants"]):
        return ""
    return (
        "<h2>Many tenants</h2>"
        '<p class="note">One server, as many loops as cores. Ratios are of requests/s, both sides in turn; each figure is the median of '
        "its rounds, beside the lowest and the highest.</p>" + _table(table)
    )


def _runtimes(tables: dict[str, Table]) -> str:
    """Programs of other runtimes, where they were measured; first of all what could not be."""
    parts = []
    if failed := tables["Runtimes that failed"]:
        parts.append('<p class="warning">Not all of this section could be measured, or it went wrong on the way.</p>' + _table(failed))
    if table := tables["Runtimes, one connection on one CPU"]:
        parts.append(
            '<p class="note">One connection, server and wrk on one CPU; each row&#x27;s program answers Hello World! It is reset after every '
            "request, kept (one worker that is never reset), and native: the runtime&#x27;s own server without a sandbox, asked by wrk "
            "directly. Vanilla is a C++ handler of the same Drogon server. All of them in turn, on every engine, medians.</p>" + _table(table)
        )
    if table := tables["Runtimes, all cores"]:
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
