"""Measurements as tables in Markdown. A figure is the median of its rounds."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from bench.flush import WHERES, Flushed

BARE, TILLWAY, STOCKED = "bare server", "Tillway", "Tillway, stocked"
HEALTHZ = "Tillway, /healthz"
LOCALSTRIPE, STATEFUL_MOCK = "localstripe", "stripe-stateful-mock"
PEERS = (LOCALSTRIPE, STATEFUL_MOCK)


class Cell(msgspec.Struct, frozen=True):
    """One server under one load in one round. `cpu_us` is the server's processor time a request, all threads."""

    server: str
    connections: int
    round: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    own_mb: float
    load_cpu: float


class Facts(msgspec.Struct, frozen=True):
    """What the figures depend on. `yardstick_us` is how long this Python takes for a fixed piece of Python."""

    cores: int
    memory_gb: float
    file_system: str
    python: str
    sqlite: str
    granian: str
    yardstick_us: float


class Report(msgspec.Struct):
    command: str
    day: str
    stored: int
    seconds: float
    facts: Facts
    cells: list[Cell]
    flushes: list[Flushed]
    loads: list[float]
    """Load averages (one minute) before each round."""
    latency: str = ""
    """The table of `bench/latency.py`; empty if it was left out."""


def markdown(report: Report) -> str:
    texts = (_provenance(report), _rates(report), report.latency, _details(report), _rounds(report))
    return "\n\n".join(text for text in texts if text)


def _provenance(report: Report) -> str:
    facts = report.facts
    loads = ", ".join(f"{load:.1f}" for load in report.loads)
    return (
        f"Made on {report.day} by `{report.command}`: {facts.cores} cores, {facts.memory_gb:.0f} GB of memory, "
        f"{facts.file_system}, Python {facts.python} (yardstick {facts.yardstick_us:.0f} µs), SQLite {facts.sqlite}, "
        f"granian {facts.granian}. {len(report.loads)} rounds of {report.seconds:g} seconds a cell; load averages "
        f"before each: {loads}."
    )


def _rates(report: Report) -> str:
    """Payments a second, side by side."""
    stocked = f"with {report.stored:,} stored"
    heads = ["connections", "bare server", "/healthz", "Tillway", "of /healthz", stocked, "of empty", *PEERS]
    rows = []
    for connections in _connections(report):
        rows.append(
            [
                str(connections),
                _rate(report, BARE, connections),
                _rate(report, HEALTHZ, connections),
                _rate(report, TILLWAY, connections),
                _share(ratios(report, TILLWAY, HEALTHZ, connections)),
                _rate(report, STOCKED, connections),
                _percent(ratios(report, STOCKED, TILLWAY, connections)),
                *(_rate(report, peer, connections) for peer in PEERS),
            ]
        )
    return f"{_table(heads, rows)}\n\n{_flushes(report)}"


def _flushes(report: Report) -> str:
    told = []
    for where in WHERES:
        flushes = [flush for flush in report.flushes if flush.where == where]
        rates = ", ".join(f"{flush.per_second:,.0f}" for flush in flushes)
        p50 = median(flush.p50_ms for flush in flushes)
        p99 = median(flush.p99_ms for flush in flushes)
        told.append(f"{where} {rates} (p50 {p50:.2f} ms, p99 {p99:.2f} ms)")
    return f"Flushes a second of the same disk, one thread, 4 KiB each, by round: {'; '.join(told)}."


def _details(report: Report) -> str:
    heads = ["server", "connections", "a second", "p50 ms", "p99 ms", "CPU µs", "memory MB", "without files MB"]
    rows = []
    for server in dict.fromkeys(cell.server for cell in report.cells):
        for connections in _connections(report):
            cells = _cells(report, server, connections)
            if cells:
                figures = (
                    f"{_median(cells, lambda cell: cell.per_second):,.0f}",
                    f"{_median(cells, lambda cell: cell.p50_ms):.2f}",
                    f"{_median(cells, lambda cell: cell.p99_ms):.2f}",
                    f"{_median(cells, lambda cell: cell.cpu_us):,.0f}",
                    f"{_median(cells, lambda cell: cell.memory_mb):,.0f}",
                    f"{_median(cells, lambda cell: cell.own_mb):,.0f}",
                )
                rows.append([server, str(connections), *figures])
    busiest = max(cell.load_cpu for cell in report.cells)
    return f"{_table(heads, rows)}\n\nThe load generator used at most {100 * busiest:.0f} % of its core."


def _rounds(report: Report) -> str:
    """The ratios round by round: how much of a figure is noise."""
    heads = ["connections", "Tillway of its /healthz, by round", "stocked of empty, by round"]
    rows = [
        [
            str(connections),
            ", ".join(f"{ratio:.3f}" for ratio in ratios(report, TILLWAY, HEALTHZ, connections)),
            ", ".join(f"{100 * ratio:.0f} %" for ratio in ratios(report, STOCKED, TILLWAY, connections)) or "-",
        ]
        for connections in _connections(report)
    ]
    return _table(heads, rows)


def ratios(report: Report, server: str, to: str, connections: int) -> list[float]:
    """The rate of `server` over that of `to`, in each round that has both."""
    below = {cell.round: cell.per_second for cell in _cells(report, to, connections)}
    return [
        cell.per_second / below[cell.round]
        for cell in _cells(report, server, connections)
        if below.get(cell.round, 0.0) > 0
    ]


def _cells(report: Report, server: str, connections: int) -> list[Cell]:
    return [cell for cell in report.cells if cell.server == server and cell.connections == connections]


def _connections(report: Report) -> list[int]:
    return sorted({cell.connections for cell in report.cells})


def _median(cells: Iterable[Cell], figure: Callable[[Cell], float]) -> float:
    return median(map(figure, cells))


def _rate(report: Report, server: str, connections: int) -> str:
    cells = _cells(report, server, connections)
    return f"{_median(cells, lambda cell: cell.per_second):,.0f}" if cells else "-"


def _share(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.3f}" if ratios else "-"


def _percent(ratios: Sequence[float]) -> str:
    return f"{100 * median(ratios):.0f} %" if ratios else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    lines = [heads, ["-" * (width - 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
