"""Hypothesis strategies: times, states, words, JSON, paths, and predicates with known verdicts."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Any, TypeVar

from hypothesis import strategies as st
from starlette.requests import Request

from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.predicates import all_of, any_of, not_
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window
from fastapi_maintenance.typing import AsyncPredicate, Predicate
from tests.support import make_request

_T = TypeVar("_T")

# Times


class PuttingBack(tzinfo):
    """A time zone in which every clock time occurs twice: first two hours ahead of UTC, then (`fold`) one."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=1 if dt is not None and dt.fold else 2)

    def dst(self, dt: datetime | None) -> timedelta:
        return self.utcoffset(dt) - timedelta(hours=1)

    def tzname(self, dt: datetime | None) -> str:
        return "twice" if dt is None else f"twice{dt.fold}"

    def __repr__(self) -> str:
        return "PuttingBack()"


_ALMOST_A_DAY = timedelta(days=1) - timedelta.resolution

zones: st.SearchStrategy[tzinfo] = st.one_of(
    st.just(UTC),
    st.just(PuttingBack()),
    st.builds(timezone, st.timedeltas(min_value=-_ALMOST_A_DAY, max_value=_ALMOST_A_DAY)),
)
"""Time zones, also with offsets of seconds and microseconds, and one that reads `fold`."""


def _folded(time: datetime, fold: int) -> datetime:
    return time.replace(fold=fold)


aware_times: st.SearchStrategy[datetime] = st.builds(
    _folded,
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones),  # noqa: DTZ001 -- as Hypothesis has them
    st.integers(0, 1),
)
"""Aware datetimes of any zone and fold, whose instants have a date in UTC."""

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
"""The current time in tests that need one; tests choose times around it."""


_STEPS_FROM_NOW = (-86_400_000_000, -1_000_001, -1_000_000, -1, 0, 1, 999_999, 1_000_000, 1_000_001, 86_400_000_000)
TIMES_AROUND_NOW = tuple(
    (NOW + timedelta(microseconds=microseconds)).astimezone(zone)
    for microseconds in _STEPS_FROM_NOW
    for zone in (UTC, timezone(timedelta(hours=-9, minutes=-30)))
)
times_around_now: st.SearchStrategy[datetime] = st.sampled_from(TIMES_AROUND_NOW)
"""Aware datetimes so close to `NOW` that they often fall on it and on each other."""


def instant_of(time: datetime) -> datetime:
    """Return the naive date and time in UTC, by the definition of the offset."""
    offset = time.utcoffset()
    assert offset is not None
    return time.replace(tzinfo=None, fold=0) - offset


# States

_texts = st.none() | st.text(max_size=20)
messages: st.SearchStrategy[str | None] = st.sampled_from((None, "", "Back at ten", "Zur\u00fcck\num \u2029zehn"))


def _states(
    times: st.SearchStrategy[datetime], texts: st.SearchStrategy[str | None], ids: st.SearchStrategy[str]
) -> tuple[st.SearchStrategy[Switch], st.SearchStrategy[Window], st.SearchStrategy[Hold]]:
    """Return strategies of the parts of states, from those of times, texts and ids."""
    maybe = st.none() | times
    details = {"message": texts, "by": texts, "since": maybe}
    spans = st.lists(times, min_size=2, max_size=2, unique_by=instant_of).map(lambda two: sorted(two, key=instant_of))
    windows = st.builds(
        lambda span, endless, **fields: Window(starts_at=span[0], ends_at=None if endless else span[1], **fields),
        spans,
        st.booleans(),
        id=ids,
        **details,
    )
    return (
        st.builds(Switch, on=st.booleans(), ends_at=maybe, **details),
        windows,
        st.builds(Hold, id=ids, on=st.booleans(), ends_at=maybe, expires_at=maybe, **details),
    )


def _state_of(
    switch: st.SearchStrategy[Switch], windows: st.SearchStrategy[Window], holds: st.SearchStrategy[Hold]
) -> st.SearchStrategy[MaintenanceState]:
    return st.builds(
        MaintenanceState,
        switch=switch,
        windows=st.lists(windows, max_size=3, unique_by=lambda window: window.id).map(tuple),
        holds=st.lists(holds, max_size=3, unique_by=lambda hold: hold.id).map(tuple),
    )


states: st.SearchStrategy[MaintenanceState] = _state_of(*_states(aware_times, _texts, st.text(min_size=1, max_size=8)))
"""States of all kinds, whose windows and holds differ in their ids."""

_parts_around_now = _states(times_around_now, messages, st.sampled_from("abc"))
switches_around_now, windows_around_now, holds_around_now = _parts_around_now
"""Parts that often share an id, and often begin, end or expire at `NOW`."""

states_around_now: st.SearchStrategy[MaintenanceState] = _state_of(*_parts_around_now)
"""States whose windows and holds often begin or end at `NOW`; fast to generate."""


# Words and JSON

ON_WORDS = ("1", "on", "t", "true", "y", "yes")
OFF_WORDS = ("0", "off", "f", "false", "n", "no", "")


@st.composite
def words(draw: st.DrawFn, of: tuple[str, ...]) -> str:
    """Generate one of the words, each letter of it in any case, with spaces around it."""
    spaces = st.text(" \t\r\n", max_size=3)
    letters = (draw(st.sampled_from((letter.lower(), letter.upper()))) for letter in draw(st.sampled_from(of)))
    return draw(spaces) + "".join(letters) + draw(spaces)


any_text: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=()))
"""Text that may contain lone surrogates."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=10**300),
        st.floats(),
        any_text,
        aware_times.map(datetime.isoformat),
        st.sampled_from(
            ("2026-03-29", "2026-03-29T01:30:00", "2026-03-29T01:30:00Z", "0001-01-01T00:00:00+01:00", "Z")
        ),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=8,
)


def objects_like(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate JSON objects with some of the fields, and with others."""
    known = st.fixed_dictionaries({}, optional={name: values | json_values for name, values in fields.items()})
    return st.builds(
        lambda unknown, some: {**unknown, **some}, st.dictionaries(any_text, json_values, max_size=2), known
    )


_message_texts = st.none() | any_text
_time_texts = st.none() | aware_times.map(datetime.isoformat)
_details = {"message": _message_texts, "ends_at": _time_texts, "by": _message_texts, "since": _time_texts}
_switch_like_objects = objects_like(on=st.booleans(), **_details)
_window_like_objects = objects_like(id=any_text, starts_at=_time_texts, **_details)
_hold_like_objects = objects_like(id=any_text, on=st.booleans(), expires_at=_time_texts, **_details)
state_like_objects: st.SearchStrategy[dict[str, Any]] = objects_like(
    switch=_switch_like_objects,
    windows=st.lists(_window_like_objects, max_size=2),
    holds=st.lists(_hold_like_objects, max_size=2),
)
"""JSON objects that are states except for a field or two."""

# Paths

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PREFIXES = ("/health", "/health/", "/health/live", "/Health", "/a", "/a/health", "/")

plain_segments: st.SearchStrategy[str] = st.sampled_from(("a", "health", "healthy", "Health", "live", "billing", "x-1"))
plain_paths: st.SearchStrategy[str] = st.lists(plain_segments, min_size=1, max_size=4).map(
    lambda it: "/" + "/".join(it)
)
"""Paths that all readers read in the same way."""

_PIECES = (
    *("/", "/", "/", "//", "%2f", "%2F", "\\", "%5c", "\\..\\", "/a%5c..%5c.."),
    *(".", "..", "/..", "/../", "%2e", "%2E", "%2e%2e", ".%2e", "%252e%252e", "/..;/", "%3b", ";", ";a=b", ";/"),
    *("a", "health", "health", "/health", "/health/", "HEALTH", "healthy", "live", "billing", "api", "/api"),
    *("%00", "%0a", "%0d", "%20", "%25", "%", "%zz", "%C3%A9", "%ff", "%E2%80%AE", "%ef%bc%8e", "*", "~"),
)
_STARTS = (
    *PREFIXES[:-1],
    *("", "/health/live/x", "/healthy", "/HEALTH", "/%68ealth", "/health%2flive", "%2fhealth", "//health", "/./health"),
    *("/billing/../health", "/api/health", "/api/api/health", "/health;/x", "/\\health", "/a/health/live"),
)
_ENDS = ("", "", "/billing", "/live", "/health", "/..", "/", "\\billing")


def _raw_path(start: str, pieces: list[str], end: str) -> str:
    return "/" + "".join([start, *pieces, end]).removeprefix("/")


raw_paths: st.SearchStrategy[str] = st.builds(
    _raw_path, st.sampled_from(_STARTS), st.lists(st.sampled_from(_PIECES), max_size=6), st.sampled_from(_ENDS)
)
"""Paths in request lines: percent-encoded in many ways, with everything that confuses servers."""

# Predicates

REQUEST = make_request()
"""The request for predicates with a known verdict."""


class _Says:
    """An object with a verdict: by a call, by an async method, and by one with another argument."""

    def __init__(self, verdict: bool | None) -> None:
        self._verdict = verdict

    def __call__(self, _request: Request, /) -> bool | None:
        return self._verdict

    async def wait(self, _request: Request, /) -> bool | None:
        return self._verdict

    async def wait_for(self, _spare: str, _request: Request, /) -> bool | None:
        return self._verdict


class _AsyncSays(_Says):
    async def __call__(self, _request: Request, /) -> bool | None:  # type: ignore[override]  # the async one of the same kind
        return self._verdict


class Promise:
    """An awaitable that is not a coroutine."""

    def __init__(self, verdict: bool | None) -> None:
        self._verdict = verdict

    def __await__(self) -> Generator[None, None, bool | None]:
        yield from ()
        return self._verdict


def _named(part: partial[_T]) -> partial[_T]:
    """Give a partial a name, as `functools.update_wrapper` does, so that a partial of it stays nested."""
    vars(part)["__name__"] = "named"
    return part


SYNC_MAKERS: dict[str, Callable[[bool | None], Predicate]] = {
    "function": lambda verdict: lambda _request, /: verdict,
    "object": _Says,
    "partial": lambda verdict: partial(_Says(verdict)),
}
ASYNC_MAKERS: dict[str, Callable[[bool | None], AsyncPredicate]] = {
    "async method": lambda verdict: _Says(verdict).wait,
    "async object": _AsyncSays,
    "partial of async function": lambda verdict: partial(_Says(verdict).wait_for, "spare"),
    "partial of named partial of async object": lambda verdict: partial(_named(partial(_AsyncSays(verdict)))),
}
"""Makers of predicates that are recognisably async before they are called."""
HIDDEN_MAKERS: dict[str, Callable[[bool | None], AsyncPredicate]] = {
    "lambda that returns a coroutine": lambda verdict: lambda request, /: _Says(verdict).wait(request),
    "lambda that returns an awaitable object": lambda verdict: lambda _request, /: Promise(verdict),
}
"""Makers of predicates that are not recognisably async."""
MAKERS: dict[str, Callable[[bool | None], Predicate | AsyncPredicate]] = {
    **SYNC_MAKERS,
    **ASYNC_MAKERS,
    **HIDDEN_MAKERS,
}


def make_predicate(kind: str, verdict: bool | None) -> Any:  # noqa: ANN401 -- sync or async
    """Return a predicate of this kind that always returns this verdict."""
    return MAKERS[kind](verdict)


def single_predicates(makers: Iterable[str] = MAKERS) -> st.SearchStrategy[Any]:
    """Generate predicates of these kinds that are not combinations."""
    return st.builds(make_predicate, st.sampled_from(list(makers)), st.sampled_from((True, False, None)))


def predicates(makers: Iterable[str] = MAKERS) -> st.SearchStrategy[Any]:
    """Generate predicates of these kinds, and combinations of them."""
    return st.recursive(
        single_predicates(makers),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda parts: any_of(*parts))
            | st.lists(inner, max_size=3).map(lambda parts: all_of(*parts))
            | inner.map(not_)
        ),
        max_leaves=5,
    )


def drive(awaitable: Awaitable[_T]) -> _T:
    """Return the result of an awaitable that never waits, without an event loop."""

    async def wait() -> _T:
        return await awaitable

    coroutine = wait()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    message = f"{awaitable!r} waited for something"
    raise AssertionError(message)


def verdict_of(predicate: Predicate | AsyncPredicate, request: Request = REQUEST) -> bool | None:
    """Return a predicate's result for a request, after checking that it is a verdict."""
    said = predicate(request)
    verdict = drive(said) if inspect.isawaitable(said) else said
    assert verdict is True or verdict is False or verdict is None
    return verdict


def state_of_size(size: int) -> MaintenanceState:
    """Return a state that has this length as text, some ten thousand bytes, through its holds."""
    bare = MaintenanceState(switch=Switch(on=True), holds=(Hold(id="x", on=True),) * 20)
    each, more = divmod(size - len(state_to_text(bare)), 20)
    longest = Hold(id="x" * (1 + each + more), on=True)
    return replace(bare, holds=(*[Hold(id="x" * (1 + each), on=True)] * 19, longest))
