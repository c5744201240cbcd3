"""`middleware.py`, `_switch/settings.py`: settings, the order of the decision, and what a blocked request gets."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    Hold,
    MaintenanceModeMiddleware,
    MaintenanceState,
    MaintenanceStatus,
    MemoryBackend,
    Switch,
    Window,
    as_html,
    as_json,
    current_status,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    path_prefix,
    set_maintenance_mode,
    status_of,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.middleware import decide
from fastapi_maintenance.state import add_hold, release_hold
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
DETAIL = "Service temporarily unavailable due to maintenance"
WHOLE_SECONDS = "retry_after must be a whole number of seconds or a timedelta, or a .*, got "
ALSO = {
    "enabled": ["enable_maintenance"],
    "exempt": ["exempt_callback", "exempt_handler"],
    "response": ["response_callback", "response_handler"],
}


def app_with(**settings: Any) -> FastAPI:  # noqa: ANN401 -- the settings of the middleware
    """Return an app in maintenance with an open, a closed and an ordinary endpoint."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(**{"backend": MemoryBackend(state=True), **settings}))

    @app.get("/")
    async def ordinary() -> str:
        return "open"

    @app.get("/off")
    @force_maintenance_mode_off
    async def forced_off() -> str:
        return "open"

    @app.get("/on")
    @force_maintenance_mode_on
    async def forced_on() -> str:
        return "open"

    return app


async def get(app: ASGIApp, path: str = "/", **settings: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's own
    async with client(app) as http:
        return await http.get(path, **settings)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("backend", object(), TypeError, r"backend must be an object with the async methods get_value\(\) and "),
        ("backend", MemoryBackend, TypeError, "backend must be .*, got the class MemoryBackend"),
        ("enabled", "yes", TypeError, "enabled must be True or False, got str 'yes'"),
        ("enabled", 1, TypeError, "enabled must be True or False, got int 1"),
        ("exempt", "/health", TypeError, "exempt must be callable, got str '/health'"),
        ("response", {"detail": "no"}, TypeError, "response must be callable, got dict"),
        ("exempt_docs", None, TypeError, "exempt_docs must be True or False, got NoneType None"),
        ("unmatched", "ignore", ValueError, "unmatched must be 'pass' or 'block', got 'ignore'"),
        ("retry_after", 1.5, TypeError, f"{WHOLE_SECONDS}float 1.5"),
        ("retry_after", True, TypeError, f"{WHOLE_SECONDS}bool True"),
        ("retry_after", (1,), TypeError, rf"{WHOLE_SECONDS}tuple \(1,\)"),
        ("retry_after", (1, 2.5), TypeError, rf"{WHOLE_SECONDS}tuple \(1, 2.5\)"),
        ("retry_after", timedelta(-1), ValueError, "retry_after must not be below 0"),
        ("retry_after", (9, 3), ValueError, r"retry_after must not be .*, got \(9, 3\)"),
        ("retry_after", (-1, 3), ValueError, "retry_after must not be below 0"),
        ("retry_after", -1, ValueError, "retry_after must not be below 0, nor .*, got -1"),
        ("fail_closed", "no", TypeError, "fail_closed must be True or False, got str 'no'"),
        (
            "read_timeout",
            timedelta(),
            ValueError,
            "read_timeout must be a finite number of seconds above 0, got datetime",
        ),
        ("read_timeout", 0, ValueError, "read_timeout must be a finite number of seconds above 0, got 0"),
        ("read_timeout", float("inf"), ValueError, "read_timeout must be a finite number of seconds above 0, got inf"),
        ("read_timeout", "1", TypeError, "read_timeout must be a number of seconds or a timedelta, got str '1'"),
    ],
)
def test_setting_that_is_wrong_is_refused_with_the_given_name_and_the_rule(
    name: str, value: object, error: type[Exception], text: str
) -> None:
    for given in [name, *ALSO.get(name, ())]:
        wrong: dict[str, Any] = {given: value}
        for make in (
            maintenance_middleware,
            partial(maintenance_middleware, FastAPI()),
            partial(MaintenanceModeMiddleware, FastAPI()),
        ):
            with pytest.raises(error, match=f"^{text.replace(name, given, 1)}"):
                make(**wrong)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        *[
            ({first: value, second: value}, rf"^{first} and {second} are two names of one setting, got both$")
            for name, value in (("enabled", True), ("exempt", as_json()), ("response", as_json()))
            for first, second in itertools.permutations([name, *ALSO[name]], 2)
        ],
        ({"exemt": 1}, r"^NAME\(\) got an unexpected keyword argument 'exemt': did you mean 'exempt'\?$"),
        ({"exempt_calback": 1}, r"^NAME\(\) got .* 'exempt_calback': did you mean 'exempt_callback'\?$"),
        (
            {"settings": 1},
            r"^NAME\(\) got an unexpected .* 'settings': it takes backend, enabled, exempt, .*websockets$",
        ),
    ],
)
def test_setting_under_two_names_or_an_unknown_one_is_refused(given: dict[str, Any], text: str) -> None:
    for make in MAKERS:
        app = FastAPI()
        app.add_middleware(make, **given)
        with pytest.raises(TypeError, match=text.replace("NAME", make.__name__)):
            app.build_middleware_stack()


MAKERS: list[Any] = [maintenance_middleware, MaintenanceModeMiddleware]
NO_APPS: list[Any] = [MemoryBackend(), "redis://:secret@localhost", path_prefix("/health"), FastAPI, len, 1]
NO_APP = r"app must be an ASGI app \(settings are keywords, such as backend=\.\.\.\), got [\w ]+$"
KEYWORDS = r"\(\) takes its settings as keywords, such as backend=..., got a "
CALLBACK = "must take a request and nothing else, got .*: write"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        *((partial(MAKERS[0], value), NO_APP) for value in NO_APPS),
        *((partial(make, FastAPI(), value), f"{make.__name__}{KEYWORDS}") for make in MAKERS for value in NO_APPS),
        (partial(MAKERS[0], response=as_html), rf"response {CALLBACK} as_html\(\) if"),
        (partial(MAKERS[0], exempt=lambda a, b: a is b), rf"exempt {CALLBACK} <lambda>\(\) if"),
        (partial(MAKERS[0](), FastAPI(), enabled=True), r"pass the settings to maintenance_middleware\(\.\.\.\)"),
    ],
)
def test_setting_in_the_wrong_place_is_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(TypeError, match=f"^{text}"):
        call()


def test_middleware_accepts_an_app_whose_signature_cannot_be_read() -> None:
    class Strange:
        __signature__ = "none"

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    strange = Strange()
    assert vars(maintenance_middleware(strange))["app"] is strange


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("suffix", ["callback", "handler"])
async def test_setting_may_have_the_name_of_the_spec_or_of_earlier_releases(suffix: str, make: Any) -> None:  # noqa: ANN401 -- either
    app = FastAPI()
    callbacks: dict[str, Any] = {
        f"exempt_{suffix}": path_prefix("/exempt"),
        f"response_{suffix}": lambda _request: PlainTextResponse("closed", 503),
    }
    app.add_middleware(make, enable_maintenance=True, enabled=None, **callbacks)
    app.add_api_route("/", lambda: "open")
    app.add_api_route("/exempt", lambda: "open")
    assert [(await get(app, path)).text for path in ("/", "/exempt")] == ["closed", '"open"']


async def test_middleware_added_in_any_way_does_the_same() -> None:
    app = app_with(backend=MemoryBackend())
    settings: Any = {"enabled": True, "exempt": path_prefix("/health")}
    wrap: Any = maintenance_middleware(**settings)
    ways: list[Any] = [
        wrap(app),
        maintenance_middleware(app, **settings),
        partial(maintenance_middleware, **settings)(app=app),  # as Starlette before 0.39 does
        MaintenanceModeMiddleware(app, **settings),
    ]
    found = {tuple([(await get(way, path)).status_code for path in ("/", "/off", "/health")]) for way in ways}
    assert (found, {type(way) for way in ways}) == ({(503, 200, 404)}, {MaintenanceModeMiddleware})
    assert wrap.__name__ == "maintenance"


# --- the order of the decision ---------------------------------------------------------------------------------------

# The rows of the design's table: what each needs, and what it says. Its first row, neither HTTP nor WebSocket, is
# decided before; in the last one, which needs nothing, the predicate decides.
RULES: list[tuple[dict[str, object], bool | None]] = [
    ({"mark": True}, True),
    ({"mark": False}, False),
    ({"active": False}, False),
    ({"answered": False, "unmatched": "pass"}, False),
    ({"documentation": True, "exempt_docs": True}, False),
    ({}, None),
]
FACTS: dict[str, tuple[Any, ...]] = {
    "mark": (None, True, False),
    "unmatched": ("pass", "block"),
    **dict.fromkeys(("active", "answered", "documentation", "exempt_docs"), (True, False)),
}


def test_decide_of_any_facts_follows_the_first_rule_that_applies() -> None:
    applied = set()
    for values in itertools.product(*FACTS.values()):
        facts: Any = dict(zip(FACTS, values, strict=True))
        number = next(number for number, (needs, _) in enumerate(RULES) if needs.items() <= facts.items())
        assert decide(**facts) is RULES[number][1], facts
        applied.add(number)
    assert applied == set(range(len(RULES)))


@pytest.mark.parametrize("hold", [None, True, False])
async def test_middleware_obeys_an_open_block_before_the_setting_and_that_before_the_store(hold: bool | None) -> None:
    for enabled, state in itertools.product([None, True, False], [True, False]):
        backend = MemoryBackend(state=state)
        async with contextlib.AsyncExitStack() as stack:
            if hold is not None:
                await stack.enter_async_context((maintenance_mode_on if hold else maintenance_mode_off)(backend))
            response = await get(app_with(backend=backend, enabled=enabled))
        active = next(value for value in (hold, enabled, state) if value is not None)
        assert (response.status_code, "retry-after" in response.headers) == (503 if active else 200, active)


@pytest.mark.parametrize("exempt", [True, False])
async def test_middleware_decides_by_the_first_rule_that_applies(exempt: bool) -> None:
    paths = ("/on", "/off", "/nothing", "/docs", "/")
    for unmatched, docs in itertools.product(["pass", "block"], [True, False]):
        settings: dict[str, Any] = {"exempt": lambda _: exempt, "unmatched": unmatched, "exempt_docs": docs}
        async with client(app_with(**settings)) as http:
            blocked = [path for path in paths if (await http.get(path)).status_code == 503]
        rules = {"/on": True, "/off": False, "/nothing": unmatched == "block", "/docs": not docs, "/": True}
        assert blocked == [path for path in paths if path == "/on" or (rules[path] and not exempt)]
        async with client(app_with(backend=MemoryBackend(), **settings)) as http:
            assert [path for path in paths if (await http.get(path)).status_code == 503] == ["/on"]


async def test_middleware_passes_what_is_neither_http_nor_websocket_and_no_drain_waits_for_it() -> None:
    seen: list[tuple[str, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append((scope["type"], len(layer._served.requests)))

    async def unused(*_: object) -> Any:  # noqa: ANN401 -- it is never called
        raise AssertionError

    layer = MaintenanceModeMiddleware(app, enabled=True)
    for kind in ("lifespan", "something.new"):
        await layer({"type": kind}, unused, unused)
    assert seen == [("lifespan", 0), ("something.new", 0)]


# --- predicates and callbacks, sync and async ------------------------------------------------------------------------


class AsyncCallable:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def __call__(self, request: Request) -> Any:  # noqa: ANN401 -- a bool or a response
        del request
        return self.answer


def kinds_of(answer: object) -> dict[str, Callable[[Request], Any]]:
    """Return callbacks of every kind with this answer."""

    async def function(request: Request, *, extra: int = 0) -> Any:  # noqa: ANN401 -- a bool or a response
        del request, extra
        return answer

    return {
        "a sync function": lambda _request: answer,
        "an async function": function,
        "an async callable object": AsyncCallable(answer),
        "a partial of an async function": partial(function, extra=1),
        "a lambda that returns a coroutine": lambda request: function(request),  # noqa: PLW0108 -- a lambda is what is tested
    }


@pytest.mark.parametrize("kind", kinds_of(answer=True))
async def test_middleware_awaits_predicates_and_response_callbacks_of_every_kind(kind: str) -> None:
    statuses = [(await get(app_with(exempt=kinds_of(answer)[kind]))).status_code for answer in (True, False)]
    callback = kinds_of(PlainTextResponse("closed", status_code=418))[kind]
    response = await get(app_with(response=callback))
    assert (statuses, response.status_code, response.text) == ([200, 503], 418, "closed")


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_middleware_passes_on_what_a_predicate_adds_to_the_scope(root_path: str) -> None:
    def exempt(request: Request) -> bool:
        request.scope["tenant"] = "a"
        return True

    app = app_with(exempt=exempt)
    app.root_path = root_path  # as FastAPI(root_path=...) does, which newer releases warn of

    @app.get("/tenant")
    async def tenant(request: Request) -> str:
        return str(request.scope.get("tenant"))

    assert (await get(app, "/tenant")).json() == "a"


# --- what a blocked request is answered with -------------------------------------------------------------------------


async def test_blocked_request_gets_json_with_the_two_headers_by_default() -> None:
    response = await get(app_with())
    headers = [response.headers[name] for name in ("content-type", "retry-after", "cache-control")]
    assert (response.status_code, response.json()) == (503, {"detail": DETAIL})
    assert headers == ["application/json", "3600", "no-store"]


async def test_blocked_request_gets_the_message_of_the_newest_block_or_the_operator_instead_of_the_detail() -> None:
    backend = MemoryBackend(MaintenanceState(switch=Switch(on=True)))
    app = app_with(backend=backend, response=as_json("Closed"))

    async def message() -> str:
        return str((await get(app)).json()["detail"])

    messages = [await message()]
    await set_maintenance_mode(True, backend, message='Back "soon" <b>')
    async with maintenance_mode_on(backend):
        messages.append(await message())
        async with maintenance_mode_on(backend, message="block"):
            messages.append(await message())
    assert messages == ["Closed", 'Back "soon" <b>', "block"]
    with pytest.raises(TypeError, match=r"^detail must be a str, got int 503"):
        as_json(503)  # type: ignore[arg-type]  # the mistake under test


def switched(ends_at: datetime | None = None) -> MaintenanceState:
    return MaintenanceState(switch=Switch(on=True, ends_at=ends_at))


def held(ends_at: datetime) -> MaintenanceState:
    return replace(switched(), holds=(Hold(id="a", on=True, ends_at=ends_at),))


def planned(starts_at: datetime, ends_at: datetime | None) -> MaintenanceState:
    return MaintenanceState(windows=(Window(id="a", starts_at=starts_at, ends_at=ends_at),))


@pytest.mark.parametrize(
    ("state", "retry_after", "least", "most"),
    [
        (lambda _: switched(), 7, 7, 7),
        (lambda _: switched(), timedelta(minutes=2), 120, 120),
        (lambda _: switched(), (100, 130), 100, 130),
        (lambda _: switched(), (timedelta(seconds=100), timedelta(seconds=130)), 100, 130),
        (lambda now: switched(now + timedelta(seconds=1000)), (100, 130), 1000, 1030),
        (lambda now: switched(now + timedelta(seconds=89.1)), 7, 90, 90),
        (lambda now: planned(now - HOUR, now + timedelta(seconds=90)), 7, 90, 90),
        (lambda now: planned(now - HOUR, None), 7, 7, 7),
        (lambda now: replace(planned(now + HOUR, now + 2 * HOUR), switch=switched(now + HOUR).switch), 7, 7200, 7200),
        (lambda now: replace(held(now + HOUR), switch=Switch()), 7, 3600, 3600),
        (lambda now: held(now + HOUR), 7, 7, 7),  # the switch below it has no end
        (lambda now: replace(held(now - HOUR), switch=Switch()), 3600, 30, 30),
        (lambda now: replace(held(now - HOUR), switch=Switch()), 7, 7, 7),
        (lambda now: replace(held(now - HOUR), switch=Switch()), (10, 60), 10, 30),
        (lambda now: replace(held(now - HOUR), switch=Switch()), (100, 130), 30, 30),
    ],
)
async def test_retry_after_end_of_the_status_or_setting_is_sent(
    stopped_at: datetime, state: Callable[[datetime], MaintenanceState], retry_after: object, least: int, most: int
) -> None:
    app = app_with(backend=MemoryBackend(state(stopped_at)), retry_after=retry_after)
    values = {int((await get(app)).headers["retry-after"]) for _ in range(40 if most > least else 1)}
    assert (least <= min(values) <= max(values) <= most, len(values) > 5) == (True, most > least)


async def test_retry_after_endpoint_is_forced_on_is_the_setting() -> None:
    backend = MemoryBackend(switched(datetime.now(UTC) + timedelta(seconds=90)))  # is not what blocks it
    assert (await get(app_with(backend=backend, retry_after=7), "/on")).headers["retry-after"] == "7"


async def test_blocked_request_keeps_the_headers_of_the_response() -> None:
    def own(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("closed", 503, headers={"retry-after": "5", "CACHE-CONTROL": "max-age=1"})

    headers = (await get(app_with(response=own))).headers
    assert [headers.get_list(name) for name in ("retry-after", "cache-control")] == [["5"], ["max-age=1"]]


async def test_blocked_request_gets_the_current_end_from_a_response_that_is_used_again() -> None:
    shared = PlainTextResponse("closed", 503)
    backend = MemoryBackend(MaintenanceState(switch=Switch(on=True, ends_at=datetime.now(UTC) + timedelta(seconds=90))))
    app = app_with(backend=backend, response=lambda _request: shared, retry_after=7)
    first = await get(app)
    await backend.set_value(True)
    assert first.headers["retry-after"] != (await get(app)).headers["retry-after"] == "7"


async def test_blocked_request_gets_responses_of_every_class(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("a page", encoding="utf-8")

    async def parts() -> AsyncIterator[str]:
        for part in ("in ", "parts"):
            yield part

    texts = []
    for each in (FileResponse(page, 503), StreamingResponse(parts(), 503), RedirectResponse("/elsewhere", 307)):
        response = await get(app_with(response=lambda _request, each=each: each))
        texts.append((response.status_code, response.text, response.headers["retry-after"]))
    assert texts == [(503, "a page", "3600"), (503, "in parts", "3600"), (307, "", "3600")]


async def test_current_status_blocked_request_is_the_status_behind_the_block(stopped_at: datetime) -> None:
    seen: list[MaintenanceStatus] = []

    def response(request: Request) -> PlainTextResponse:
        seen.append(current_status(request))
        return PlainTextResponse("closed", 503)

    states = [switched(stopped_at + HOUR), held(stopped_at + HOUR), planned(stopped_at - HOUR, stopped_at + HOUR)]
    for state in states:
        await get(app_with(backend=MemoryBackend(state), response=response))
    await get(app_with(response=response), "/on")
    await get(app_with(enabled=True, response=response))
    assert seen == [*(status_of(state, stopped_at) for state in states), *[MaintenanceStatus(active=True)] * 2]


def test_current_status_request_was_not_blocked_raises() -> None:
    with pytest.raises(LookupError, match=r"^request has no maintenance status"):
        current_status(make_request())


async def test_middleware_newer_hold_of_another_process_decides_over_its_own_block() -> None:
    backend = MemoryBackend()
    app = app_with(backend=backend)
    async with maintenance_mode_off(backend):
        await backend.update_state(lambda state: add_hold(state, Hold(id="a", on=True, message="job"), clock.now()))
        blocked = await get(app)
        said = (blocked.status_code, blocked.json()["detail"], await get_maintenance_mode(backend))
        await backend.update_state(lambda state: release_hold(state, "a"))
        assert (said, (await get(app)).status_code) == ((503, "job", True), 200)
