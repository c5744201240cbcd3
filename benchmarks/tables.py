"""The tables of what a request costs, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from per_request import FLOOR, LIMITS, OURS, PEERS, ROUTES, SHOWN, Cell, Results, base_of

__all__ = ["print_table", "print_tables"]

Figure = Callable[[str, int, str], str]
"""What stands in the cell of a variant, a number of routes and a scenario."""


def print_table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a table, its columns aligned; a row of nothing but `-` is left out."""
    shown = [(name, cells) for name, cells in rows if any(cell != "-" for cell in cells)]
    if not shown:
        return
    lines = [list(columns), *([name, *cells] for name, cells in shown)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    print(f"\n{title}\n")
    for number, (name, *cells) in enumerate(lines):
        aligned = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        print(f"| {' | '.join(aligned)} |")
        if number == 0:
            print(f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|")
    print(flush=True)


def _table(title: str, names: Sequence[str], scenarios: Sequence[str], figure: Figure) -> None:
    places = [(routes, scenario) for routes in ROUTES for scenario in scenarios]
    columns = ["variant", *(f"{routes} {scenario}" for routes, scenario in places)]
    print_table(title, columns, [(name, [figure(name, *place) for place in places]) for name in names])


def _shown(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def _times(value: float | None, base: float | None, less: float = 0.0) -> str:
    return "-" if value is None or base is None else f"{(value - less) / (base - less):.2f}x"


def print_tables(results: Results) -> None:
    """Print all that was measured."""
    driver = results.median(Cell("driver", 10, "first", on=False)) or 0.0
    print(f"\nThe driver itself takes {driver:.2f} us a request, which all times contain.")

    def above_nothing(name: str, routes: int, scenario: str) -> str:
        cell = Cell(name, routes, "first", on=False, shortcut=scenario == "alone")
        return _shown(results.above(cell, cell._replace(variant="nothing")), "{:+.2f}")

    def off(name: str, routes: int, scenario: str) -> str:
        return _shown(results.median(Cell(name, routes, scenario, on=False)))

    def off_times(name: str, routes: int, scenario: str) -> str:
        cell = Cell(name, routes, scenario, on=False)
        return _times(results.median(cell), results.median(cell._replace(variant=base_of("plain", name))))

    def on(name: str, routes: int, scenario: str) -> str:
        return _shown(results.median(Cell(name, routes, scenario, on=True)))

    def passing(name: str, routes: int, scenario: str) -> str:
        return _shown(results.median(Cell(name, routes, scenario, on=not name.startswith(("plain", "nothing")))))

    paths = ["first", "last"]
    places = ["alone", "in app"]  # the routes are there in both, and run in the second
    _table("Off, us above a middleware that does nothing", ("plain", *OURS), places, above_nothing)
    _table("Off, the whole app, us", SHOWN, paths, off)
    _table("Off, the whole app, times the plain app with the same FastAPI", SHOWN, paths, off_times)
    _table("Blocked, us", (*LIMITS, *OURS, *PEERS), paths, on)
    for limit in LIMITS:
        _table(f"Blocked, times the {limit}", (*OURS, *PEERS), paths, _blocked_times(results, limit, 0.0))
    _table("Blocked, times the bare 503, less the driver", OURS, paths, _blocked_times(results, "bare 503", driver))
    _table("Passing during maintenance, us", SHOWN, ["exempt", "forced off", "404"], passing)
    for cell, status in sorted(results.wrong.items()):
        switch = "on" if cell.on else "off"
        print(f"{cell.variant} ({cell.routes} routes, {cell.scenario}, {switch}): {status} instead of {cell.expected}")


def _blocked_times(results: Results, limit: str, less: float) -> Figure:
    def times(name: str, routes: int, scenario: str) -> str:
        cell = Cell(name, routes, scenario, on=True)
        base = limit if limit not in FLOOR else base_of(limit, name)
        return _times(results.median(cell), results.median(cell._replace(variant=base)), less)

    return times
