"""Draw the plots that the README shows, from the figures of the other modules."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_SHOWN = {
    "plain": ("the plain app", "#8c959f", "s"),
    "bare 503": ("a bare ASGI 503", "#8c959f", "v"),
    "response 503": ("a JSONResponse", "#8c959f", "x"),
    "memory": ("this library", "#0969da", "o"),
    "0.0.5 env": ("0.0.5", "#bf8700", "^"),
    "waygate": ("waygate", "#8250df", "D"),
}
"""The name, colour and marker of each variant; the colours are seen on white and on black."""

_TEXT = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
_DARK = "@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 !important } }\n"
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(_TEXT, "#57606a"),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), "#8c959f"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlelocation": "left",
    "font.size": 9,
    "grid.alpha": 0.4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fastapi-maintenance",  # the same figures give the same file
}


def _bars(figure: Figure, title: str, rows: list[tuple[str, float, str]]) -> None:
    names, values, colours = zip(*rows, strict=True)
    axes = figure.subplots()
    axes.bar_label(axes.barh(range(len(rows)), values, color=colours), [f"{value:.1f}" for value in values], padding=4)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_title(title)


def off(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as they were read
    """Draw what a request costs more while it is off, the median of what it is with each number of routes."""
    more: dict[tuple[str, str, bool], list[float]] = {}
    for cell in figures:
        if "more" in cell and cell["base"] == "nothing" and cell["variant"] not in {"nothing", "memory class"}:
            more.setdefault((cell["variant"], cell["scenario"], cell["on"]), []).append(cell["more"])
    names = {key: f"this library, {key[0]}" for key in more if key[1] == "alone"}
    names |= {key: key[0] for key in more if key in {("0.0.5 env", "first", False), ("waygate", "first", False)}}
    rows = [(name, median(more[key]), _SHOWN.get(key[0], _SHOWN["memory"])[1]) for key, name in names.items()]
    _bars(figure, "Off: microseconds that a request costs more than without it", rows)


def blocked(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw what a request to the last route costs, by the number of routes."""
    axes = figure.subplots()
    found = {(cell["variant"], cell["routes"], cell["scenario"], cell["on"]): cell.get("us") for cell in figures}
    for variant, (name, colour, marker) in _SHOWN.items():
        costs = [found.get((variant, routes, "last", variant != "plain")) for routes in (10, 100, 1000)]
        if None not in costs and variant != "response 503":
            label = f"{name}: {costs[-1]:,.0f} µs with 1000"
            axes.loglog([10, 100, 1000], costs, color=colour, marker=marker, label=label)
    axes.set_xticks([10, 100, 1000], ["10 routes", "100 routes", "1000 routes"])
    axes.yaxis.set_major_formatter("{x:,g} µs")
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_title("Blocked: microseconds for a request to the last route, each to a new path")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def served(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw how many requests a server answers."""
    rows = [
        (f"{switch}: {name}", median(run["requests/s"] for run in found[variant]) / 1000, colour)
        for switch, found in figures.items()
        for variant, (name, colour, _) in _SHOWN.items()
        if variant in found
    ]
    _bars(figure, "Thousands of requests a second, one worker of uvicorn", rows)


def storm(figure: Figure, figures: Any) -> None:  # noqa: ANN401 -- as above
    """Draw when blocked clients come back."""
    both = figure.subplots(2, sharex=True)
    for axes, (retry_after, counts), shown in zip(both, figures["returns"].items(), ("plain", "memory"), strict=True):
        first, last = min(map(int, counts)), max(map(int, counts))
        values = [counts.get(str(second), 0) for second in range(first, last + 1)]
        axes.stairs(values, range(first, last + 2), fill=True, color=_SHOWN[shown][1])
        axes.set_title(f"retry_after={retry_after}: at most {max(values):,} in a second")
        axes.yaxis.set_major_formatter("{x:,g}")
    both[-1].set_xlabel("seconds after they were blocked")
    figure.suptitle("10,000 clients come back after a maintenance of five minutes", x=0.01, ha="left")


_PLOTS: dict[str, tuple[str, Callable[[Figure, Any], None], float]] = {
    "off": ("requests", off, 2.6),
    "blocked": ("requests", blocked, 3.6),
    "server": ("server", served, 2.8),
    "storm": ("storm", storm, 3.2),
}
"""The part that each plot shows, what draws it, and its height in inches."""


def draw(results: Path, into: Path) -> None:
    """Draw each plot whose figures are there, without a background."""
    for name, (part, fill, height) in _PLOTS.items():
        source = results / f"{part}.json"
        if source.exists():
            with mpl.rc_context(_STYLE), io.StringIO() as text:
                figure = Figure(figsize=(7.5, height), layout="constrained")
                fill(figure, json.loads(source.read_text(encoding="utf-8")))
                figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
                drawn = text.getvalue().replace("*{stroke-linejoin", f"{_DARK}*{{stroke-linejoin", 1)
            into.joinpath(f"{name}.svg").write_text(drawn.replace(" \n", "\n"), encoding="utf-8")
