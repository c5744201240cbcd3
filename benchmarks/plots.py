"""Draw the plots that the README shows, from the figures of the other modules."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

__all__ = ["draw"]

_OURS, _LIMIT, _OLD, _OTHER = "#0969da", "#8c959f", "#bf8700", "#8250df"
"""The colours: this library, what it is held against, version 0.0.5, and waygate; seen on white and on black."""

_TEXT = "#57606a"
_DARK = "@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 !important } }\n"
_COLOURED = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fastapi-maintenance",  # the same figures give the same file
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), _TEXT
    ),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _LIMIT),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.alpha": 0.4,
    "legend.frameon": False,
}
_Rows = list[tuple[str, float, str]]


def _bars(axes: Axes, title: str, rows: _Rows) -> None:
    names, values, colours = zip(*rows, strict=True)
    drawn = axes.barh(range(len(rows)), values, color=colours, height=0.7)
    axes.bar_label(drawn, [f"{value:.1f}" for value in values], padding=4)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_title(title)


def off(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as they were read
    """Draw what a request costs more while it is off, the median of what it is with each number of routes."""
    more: dict[str, list[float]] = {}
    for cell in figures:
        is_peer = cell["variant"] in {"0.0.5 env", "waygate"}
        if cell["scenario"] == ("first" if is_peer else "alone") and not cell["on"] and "more" in cell:
            more.setdefault(cell["variant"], []).append(cell["more"])
    names = {name: f"this library, {name}" for name in more if name not in {"nothing", "memory class"}}
    names.update({name: name for name in ("0.0.5 env", "waygate") if name in more})
    colours = {"0.0.5 env": _OLD, "waygate": _OTHER}
    rows = [(label, statistics.median(more[name]), colours.get(name, _OURS)) for name, label in names.items()]
    _bars(figure.subplots(), "Off: microseconds that a request costs more than without it", rows)


def blocked(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw what a request to the last route costs, by the number of routes."""
    axes = figure.subplots()
    for variant, name, colour, marker in (
        ("plain", "what it replaces", _LIMIT, "s"),
        ("0.0.5 env", "0.0.5", _OLD, "^"),
        ("waygate", "waygate", _OTHER, "D"),
        ("memory", "this library", _OURS, "o"),
        ("bare 503", "a bare ASGI 503", _LIMIT, "v"),
    ):
        wanted = (variant, "last", variant != "plain")
        points = {
            cell["routes"]: cell["us"]
            for cell in figures
            if (cell["variant"], cell["scenario"], cell["on"]) == wanted and "us" in cell
        }
        if points:
            label = f"{name}: {points[max(points)]:,.0f} µs with {max(points)}"
            axes.loglog(list(points), list(points.values()), color=colour, marker=marker, label=label)
    axes.set_xticks([10, 100, 1000], ["10 routes", "100 routes", "1000 routes"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g} µs"))
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_title("Blocked: microseconds for a request to the last route, each to a new path")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def served(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw how many requests a server answers."""
    rates = {(run["variant"], run["on"]): run["rate"] / 1000 for run in figures}
    rows = []
    for variant, name, colour in (
        ("plain", "the plain app", _LIMIT),
        ("bare 503", "a bare ASGI 503", _LIMIT),
        ("response 503", "a JSONResponse", _LIMIT),
        ("memory", "this library", _OURS),
        ("0.0.5 env", "0.0.5", _OLD),
        ("waygate", "waygate", _OTHER),
    ):
        rows += [
            (f"{'on' if on else 'off'}: {name}", rates[variant, on], colour)
            for on in (False, True)
            if (variant, on) in rates
        ]
    rows.sort(key=lambda row: row[0].startswith("on"))  # off comes first
    _bars(figure.subplots(), "Thousands of requests a second, one worker of uvicorn", rows)


def storm(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw when clients come back that were told how long the maintenance takes."""
    both = figure.subplots(2, sharex=True)
    for axes, (told, counts), colour in zip(both, figures["returns"].items(), (_LIMIT, _OURS), strict=True):
        first, last = min(map(int, counts)), max(map(int, counts))
        values = [counts.get(str(second), 0) for second in range(first, last + 1)]
        axes.stairs(values, range(first, last + 2), fill=True, color=colour)
        axes.set_title(f"retry_after={told}: at most {max(values):,} in a second", fontsize=9)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    both[-1].set_xlabel("seconds after they were blocked")
    figure.suptitle("10,000 clients come back after a maintenance of five minutes", x=0.01, ha="left", fontsize=11)


_PLOTS: dict[str, tuple[str, Callable[[Figure, Any], None], float]] = {
    "off": ("requests", off, 2.6),
    "blocked": ("requests", blocked, 3.6),
    "server": ("server", served, 2.8),
    "storm": ("storm", storm, 3.2),
}
"""The part that each plot shows, what draws it, and its height in inches."""


def draw(results: Path, into: Path) -> None:
    """Draw each plot whose figures are there, the same file of the same figures, without a background."""
    for name, (part, fill, height) in _PLOTS.items():
        source = results / f"{part}.json"
        if source.exists():
            with mpl.rc_context(_STYLE), io.StringIO() as text:
                figure = Figure(figsize=(7.5, height), layout="constrained")
                fill(figure, json.loads(source.read_text(encoding="utf-8")))
                figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
                drawn = text.getvalue().replace("*{stroke-linejoin", f"{_DARK}*{{stroke-linejoin", 1)
            target = into / f"{name}.svg"
            target.write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n", encoding="utf-8")
            print(f"{target}: {target.stat().st_size} bytes")
