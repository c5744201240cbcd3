"""Tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print a table, its columns aligned."""
    lines = [list(columns), *([name, *cells] for name, cells in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    print(f"\n{title}\n")
    for name, *cells in lines:
        aligned = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        print(f"| {' | '.join(aligned)} |")
    print(flush=True)


def print_medians(title: str, columns: Mapping[str, str], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the medians of what was found in each round; each column has the name of a figure, and its format."""
    rows = []
    for name, rounds in found.items():
        medians = {key: statistics.median(one[key] for one in rounds) for key in columns}
        rows.append((name, [form.format(medians[key]) for key, form in columns.items()]))
    print_table(title, ["variant", *columns], rows)
