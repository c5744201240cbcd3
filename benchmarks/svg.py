"""Three small plots as SVG: bars, lines on logarithmic scales, and steps over time.

Each is a file of a few kilobytes without scripts or fonts, on whatever background it stands, in light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["bars", "lines", "steps"]

_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 14px; font-weight: 600 }
.value, .ours { font-weight: 600 }
.axis { stroke: #8c959f; stroke-width: 1; opacity: .4; fill: none }
.f0 { fill: #0969da } .f1 { fill: #8c959f } .f2 { fill: #bf8700 } .f3 { fill: #8250df }
.s0 { stroke: #0969da } .s1 { stroke: #8c959f } .s2 { stroke: #bf8700 } .s3 { stroke: #8250df }
.line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #c9d1d9 }
  .f0 { fill: #58a6ff } .f2 { fill: #d29922 } .f3 { fill: #bc8cff }
  .s0 { stroke: #58a6ff } .s2 { stroke: #d29922 } .s3 { stroke: #bc8cff }
}
</style>"""
_WIDTH = 720
_LABEL = 190
"""Where the plot begins, right of the names."""

_ROW = 22
_TOP = 34


def bars(title: str, rows: Sequence[tuple[str, float, int]], form: str = "{:.0f}") -> str:
    """Return a plot of a bar for each name, value and number of a colour."""
    most = max(value for _, value, _ in rows)
    room = _WIDTH - _LABEL - 70
    parts = []
    for number, (name, value, colour) in enumerate(rows):
        y = _TOP + number * _ROW
        width = max(1.0, room * max(0.0, value) / most)
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="f{colour}" x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 7}" rx="2"/>',
            f'<text class="value" x="{_LABEL + width + 6:.1f}" y="{y + 14}">{form.format(value)}</text>',
        ]
    return _document(title, _TOP + len(rows) * _ROW + 6, parts)


def lines(title: str, series: Sequence[tuple[str, Mapping[int, float], int]], unit: str) -> str:
    """Return a plot of a line for each name, points and number of a colour, both axes logarithmic."""
    left, right, height = 60, _WIDTH - 190, 300
    xs = sorted({x for _, points, _ in series for x in points})
    ys = [y for _, points, _ in series for y in points.values()]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - math.log10(xs[0])) / (math.log10(xs[-1]) - math.log10(xs[0]))
        return left + across * (right - left), _TOP + 10 + (high - math.log10(y)) / (high - low) * height

    parts = []
    for power in range(low, high + 1):
        _, y = place(xs[0], 10.0**power)
        parts.append(f'<path class="axis" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:g} {escape(unit)}</text>')
    bottom = _TOP + height + 30
    parts += [f'<text x="{place(x, 1)[0]:.1f}" y="{bottom}" text-anchor="middle">{x} routes</text>' for x in xs]
    ends = sorted((place(max(points), points[max(points)])[1], name) for name, points, _ in series)
    labels = dict(_spread(ends))
    for name, points, colour in series:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in sorted(points.items())))
        value = points[max(points)]
        parts.append(f'<path class="line s{colour}" d="M{path}"/>')
        parts.append(f'<text x="{right + 8}" y="{labels[name] + 4:.1f}">{escape(name)}, {value:.0f} {unit}</text>')
    return _document(title, _TOP + height + 44, parts)


def steps(title: str, series: Sequence[tuple[str, Mapping[int, int], int]]) -> str:
    """Return a plot of how many arrive in each second, one row for each name, counts and number of a colour."""
    height, gap = 70, 34
    begin = min(second for _, counts, _ in series for second in counts) - 10
    end = max(second for _, counts, _ in series for second in counts) + 10
    scale = (_WIDTH - 40) / (end - begin)
    parts = []
    for number, (name, counts, colour) in enumerate(series):
        base, most = _TOP + number * (height + gap) + height + 18, max(counts.values())
        parts.append(f'<text x="20" y="{base - height - 4}">{escape(name)}: at most {most} in a second</text>')
        parts.append(f'<path class="axis" d="M20 {base}H{_WIDTH - 20}"/>')
        bars_of = "".join(
            f"M{20 + (second - begin) * scale:.1f} {base}v-{max(1.0, height * count / most):.0f}h{scale:.1f}V{base}z"
            for second, count in sorted(counts.items())
        )
        parts.append(f'<path class="f{colour}" d="{bars_of}"/>')
    bottom = _TOP + len(series) * (height + gap) + 14
    ticks = range(-(-begin // 30) * 30, end + 1, 30)
    parts += [
        f'<text x="{20 + (second - begin) * scale:.1f}" y="{bottom}" text-anchor="middle">{second} s</text>'
        for second in ticks
    ]
    return _document(title, bottom + 10, parts)


def _spread(ends: Iterable[tuple[float, str]]) -> list[tuple[str, float]]:
    """Return where labels stand so that none covers another, given where their lines end from the top down."""
    placed: list[tuple[str, float]] = []
    for y, name in ends:
        placed.append((name, max(y, placed[-1][1] + 16) if placed else y))
    return placed


def _document(title: str, height: float, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">'
    titles = f'<title>{escape(title)}</title>\n<text class="title" x="20" y="20">{escape(title)}</text>'
    return "\n".join([head, _STYLE, titles, *parts, "</svg>"]) + "\n"
