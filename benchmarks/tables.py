"""The tables of what a request costs, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from per_request import OURS, PEERS, ROUTES, Cell, Results

__all__ = ["print_table", "print_tables"]

_SHOWN_OFF = ("plain", "nothing", *OURS[2:4], *PEERS)
_LIMITS = ("bare 503", "bare 503 in app", "response 503", "response 503 in app")


def print_table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a table, its columns aligned; a row of nothing but `-` is left out."""
    shown = [(name, cells) for name, cells in rows if any(cell != "-" for cell in cells)]
    if not shown:
        return
    lines = [list(columns), *([name, *cells] for name, cells in shown)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    print(f"\n{title}\n")
    for line in lines:
        cells = [cell.ljust(width) if not number else cell.rjust(width) for number, (cell, width) in _numbered(line, widths)]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def _numbered(line: list[str], widths: list[int]) -> list[tuple[int, tuple[str, int]]]:
    return list(enumerate(zip(line, widths, strict=True)))


def _figure(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def _ratio(value: float | None, base: float | None, less: float = 0.0) -> str:
    return "-" if value is None or base is None else f"{(value - less) / (base - less):.2f}x"


def _table(
    title: str, names: Sequence[str], scenarios: Sequence[str], figure: Callable[[str, int, str], str]
) -> None:
    places = [(routes, scenario) for routes in ROUTES for scenario in scenarios]
    columns = ["variant", *(f"{routes} {scenario}" for routes, scenario in places)]
    print_table(title, columns, [(name, [figure(name, *place) for place in places]) for name in names])


def print_tables(results: Results) -> None:
    """Print all that was measured."""
    driver = results.median(Cell("driver", 10, "first", on=False)) or 0.0
    print(f"\nThe driver itself: {driver:.2f} us a request, contained in all times.")

    def above_nothing(name: str, routes: int, scenario: str) -> str:
        cell = Cell(name, routes, scenario, on=False, shortcut=True)
        return _figure(results.above(cell, cell._replace(variant="nothing")), "{:+.2f}")

    _table("Off, us above a middleware that does nothing (at most 2)", ("plain", *OURS), ["first"], above_nothing)

    def off(name: str, routes: int, scenario: str) -> str:
        return _figure(results.median(Cell(name, routes, scenario, on=False)))

    _table("Off, the whole app, us", _SHOWN_OFF, ["first", "last"], off)

    def off_ratio(name: str, routes: int, scenario: str) -> str:
        cell = Cell(name, routes, scenario, on=False)
        return _ratio(results.median(cell), results.median(cell._replace(variant="plain")))

    _table("Off, times the plain app", _SHOWN_OFF, ["first", "last"], off_ratio)

    def on(name: str, routes: int, scenario: str) -> str:
        return _figure(results.median(Cell(name, routes, scenario, on=True)))

    _table("Blocked, us", (*_LIMITS, *OURS, *PEERS), ["first", "last"], on)
    for limit in _LIMITS:
        for less, what in ((0.0, ""), (driver, ", without the driver"))[: 2 if limit == "bare 503" else 1]:

            def on_ratio(name: str, routes: int, scenario: str, limit: str = limit, less: float = less) -> str:
                cell = Cell(name, routes, scenario, on=True)
                return _ratio(results.median(cell), results.median(cell._replace(variant=limit)), less)

            _table(f"Blocked, times the {limit}{what}", (*OURS, *PEERS), ["first", "last"], on_ratio)

    def passing(name: str, routes: int, scenario: str) -> str:
        return _figure(results.median(Cell(name, routes, scenario, on=name not in {"plain", "nothing"})))

    _table("Passing during maintenance, us", _SHOWN_OFF, ["exempt", "forced off", "404"], passing)
    for cell, status in sorted(results.wrong.items()):
        state = "on" if cell.on else "off"
        print(f"{cell.variant} answers {status} instead of {cell.expected}: {cell.routes}, {cell.scenario}, {state}")
