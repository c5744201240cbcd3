"""The command `routes`: what each route of an app does during maintenance, as far as that is certain in advance."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import typer
from starlette.types import ASGIApp

from fastapi_maintenance._helpers.framework import Starlette
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.layers import Layers, layers_of
from fastapi_maintenance._routing.places import WEBSOCKET, Place, places_in
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance.backends.last_known import key_of
from fastapi_maintenance.cli import options as opt
from fastapi_maintenance.cli.errors import fail
from fastapi_maintenance.cli.show import plain, print_parts
from fastapi_maintenance.cli.target import find_app, find_backend, print_switch, switch_name
from fastapi_maintenance.middleware import decide, maintained_layers
from fastapi_maintenance.predicates.in_advance import outlook_on
from fastapi_maintenance.typing import StateBackend

_Outcome = Literal["open", "blocked", "depends"]
_NO_MIDDLEWARE = "no maintenance middleware"
_COLOURS = {"open": "green", "blocked": "red", "depends": "yellow"}


def routes(
    app_path: opt.App = None, switch: opt.Switch = None, backend: opt.NotBackend = None, *, as_json: opt.AsJson = False
) -> None:
    """Show what each route of an app gets while maintenance is on, and why."""
    if backend is not None:
        fail("`routes` shows the routes of an app: give --app and --switch instead of --backend")
    path, app = find_app(app_path)
    chosen = None if switch is None else find_backend(path, switch)
    try:
        rows = routes_in_maintenance(app, chosen)
        backends = [layer.backend for layer in maintained_layers(app)] if chosen is None else [chosen]
    except Exception as error:  # noqa: BLE001 -- whatever the layers of the app raise when they are built
        fail(f"the app {path} cannot be built: {type(error).__name__}: {error}")
    if all(row.why == _NO_MIDDLEWARE for row in rows):
        fail(f"{path} is not an app with a maintenance middleware")
    names = list(dict.fromkeys(map(switch_name, backends)))
    if as_json:
        typer.echo(json.dumps({"app": path, "switches": names, "routes": [asdict(row) for row in rows]}))
        return
    for name in names:
        print_switch(f"{name} of {path}")
    _print_routes(rows)


class _Judgement(NamedTuple):
    """What one middleware does with the requests to a place."""

    verdict: _Outcome
    why: str = ""
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteInMaintenance:
    """A route for some of its methods, or something whose routes cannot be seen."""

    path: str
    host: str | None
    methods: tuple[str, ...]  # empty: any
    verdict: _Outcome
    why: str
    depends_on: tuple[str, ...]
    hidden_by: str | None


def routes_in_maintenance(app: ASGIApp, switch: StateBackend | None = None) -> list[RouteInMaintenance]:
    """Return what each route of an app does while a switch of it is on; None: while all of them are.

    This builds the middleware of the app, as the first request does.
    """
    rows: dict[tuple[object, ...], RouteInMaintenance] = {}
    for place, judgements in _judged(app, switch):
        verdict, why, on = _together(judgements)
        key = place.path, place.host, id(place.what), verdict, why, on, place.hidden_by
        methods = rows[key].methods if key in rows else ()
        rows[key] = RouteInMaintenance(
            path=place.path,
            host=place.host,
            methods=(*methods, place.method) if place.method else (),
            verdict=verdict,
            why=why,
            depends_on=on,
            hidden_by=place.hidden_by,
        )
    return list(rows.values())


_Mounted = dict[int, dict[object, list[_Judgement]]]  # by the id of the app


def _judged(
    app: ASGIApp, switch: StateBackend | None, mounted: _Mounted | None = None
) -> list[tuple[Place, list[_Judgement]]]:
    """Return each place in an app, with what each maintenance middleware around it does there."""
    *_, inner = layers_of(app)
    owner = inner if isinstance(inner, Starlette) else None
    if owner is not None and owner.middleware_stack is None:
        owner.middleware_stack = owner.build_middleware_stack()
    found: dict[object, tuple[Place, list[_Judgement]]] = {}
    layers = [each for each in maintained_layers(app) if switch is None or key_of(each.backend) == key_of(switch)]
    for place in [] if layers else places_in(Layers(app), Place()):
        found[_key(place)] = place, []
    for layer in layers:
        layers_inside = RouteFinder(layer.app, around=layer).layers({"type": "http", "app": owner})
        hidden = layers_inside.router is None or layers_inside.is_guess
        for place in places_in(layers_inside, Place()):
            judgement = _judgement_on(place, layer.settings, hidden=hidden)
            found.setdefault(_key(place), (place, []))[1].append(judgement)
    mounted = {} if mounted is None else mounted
    for place, judgements in found.values():
        if place.mounts:
            start, inner = place.mounts[0]
            if id(inner) not in mounted:
                mounted[id(inner)] = {}  # in case it is mounted in itself
                mounted[id(inner)] = {_key(each): inside for each, inside in _judged(inner, switch, mounted)}
            judgements.extend(mounted[id(inner)].get(_key(place, start), ()))
    return list(found.values())


def _key(place: Place, start: str = "") -> object:
    return place.path.removeprefix(start), place.method, id(place.what)


def _judgement_on(place: Place, settings: Settings, *, hidden: bool) -> _Judgement:
    """Return what a middleware with these settings does with requests to a place."""
    active = settings.enabled is not False
    facts = {"active": active, "answered": True, "unmatched": settings.unmatched, "exempt_docs": settings.exempt_docs}
    blocks: set[bool | None] = {
        decide(mark=mark, documentation=documentation, **facts)  # type: ignore[arg-type]  # of several types
        for mark in place.marks
        for documentation in place.documentation
    }
    why = "forced on" if place.marks == {True} else "forced off" if place.marks == {False} else "documentation"
    on: tuple[str, ...] = (f"what {place.hidden_by} does",) if len(blocks) > 1 else ()
    if None in blocks:
        method = "GET" if place.method == WEBSOCKET else place.method
        outlook = outlook_on(settings.exempt, method, place.area or place.path, hidden=hidden)
        blocks = blocks - {None} | {verdict is not True for verdict in outlook.possible}
        why, on = f"exempt by {outlook.by}", on + outlook.on
    if len(blocks) > 1:
        return _Judgement("depends", depends_on=on)
    if blocks == {False}:
        return _Judgement("open", why if active or place.marks == {False} else "enabled=False")
    return _Judgement("blocked", why if place.marks == {True} else "")


def _together(judgements: list[_Judgement]) -> _Judgement:
    """Combine the judgements of nested middlewares: a request passes if it passes all of them."""
    if not judgements:
        return _Judgement("open", _NO_MIDDLEWARE)
    for verdict in ("blocked", "depends"):
        if found := [each for each in judgements if each.verdict == verdict]:
            conditions = dict.fromkeys(each for judgement in found for each in judgement.depends_on)
            return found[0]._replace(depends_on=tuple(conditions))
    return _Judgement("open", ", ".join(dict.fromkeys(each.why for each in judgements)))


def _print_routes(rows: Sequence[RouteInMaintenance]) -> None:
    """Print a table of routes; if the terminal is too narrow for a row, print its reason on the next line."""
    table = [(row.verdict, ", ".join(row.methods) or "any", (row.host or "") + (row.path or "/")) for row in rows]
    widths = [max(map(len, column), default=0) for column in zip(*table, strict=True)]
    for row, cells in zip(rows, table, strict=True):
        padded = [plain(cell) + " " * (width - len(cell)) for cell, width in zip(cells, widths, strict=True)]
        first = "  ".join(padded).replace(row.verdict, f"[{_COLOURS[row.verdict]}]{row.verdict}[/]", 1)
        reason = _reason(row)
        print_parts(*([first, reason] if reason else [first.rstrip()]), indent="    ")


def _reason(row: RouteInMaintenance) -> str:
    parts = [row.why] if row.why else []
    if row.depends_on:
        parts.append(f"on {', '.join(row.depends_on)}")
    if row.hidden_by:
        parts.append(f"behind {row.hidden_by}, which may answer by itself")
    return plain("; ".join(parts))
