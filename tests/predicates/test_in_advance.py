"""`predicates/in_advance.py`: the verdicts that a predicate can give for a route, and what they depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.datastructures import URL
from starlette.requests import Request

from fastapi_maintenance import (
    all_of,
    always,
    any_of,
    dependency,
    header_equals,
    host_is,
    method_in,
    never,
    not_,
    path_is,
    path_matches,
    path_prefix,
)
from fastapi_maintenance.predicates.in_advance import Outlook, outlook_on, paths_in, template_matches, verdict_on
from fastapi_maintenance.typing import Predicate

KEY = header_equals("X-Key", "secret")
YES, NO = frozenset({True}), frozenset({False})
DEPENDS = frozenset({True, False, None})
ANY: frozenset[Any] = DEPENDS | {"raises"}


def mine(_: Request) -> bool:
    return True


@pytest.mark.parametrize(
    ("predicate", "template", "possible", "by", "on"),
    [
        (path_prefix("/a"), "/a", YES, "path_prefix('/a')", ()),
        (path_prefix("/a"), "/a/{x}", YES, "path_prefix('/a')", ()),
        (path_prefix("/a/"), "/a/{x}/{y}", YES, "path_prefix('/a/')", ()),
        (path_prefix("/a"), "/b/{x}", NO, "path_prefix('/a')", ()),
        (path_prefix("/a"), "/b/a/{x}/{y}", NO, "path_prefix('/a')", ()),
        (path_prefix("/A/b"), "/A/{x}", DEPENDS, "path_prefix('/A/b')", ("path",)),
        (path_prefix("/a/b"), "/{x}/b/c", DEPENDS, "path_prefix('/a/b')", ("path",)),
        (path_prefix("/{x}"), "/{x}/{y}", DEPENDS, "path_prefix('/{x}')", ("path",)),
        (path_is("/a"), "/a/{x}", NO, "path_is('/a')", ()),
        (path_is("/a/b"), "/a/{x}", DEPENDS, "path_is('/a/b')", ("path",)),
        (path_matches("/a/.*"), "/a/{x}", DEPENDS, "path_matches('/a/.*')", ("path",)),
        (method_in("GET"), "/{x}", YES, "method_in('GET')", ()),
        (method_in("POST"), "/{x}", NO, "method_in('POST')", ()),
        (KEY, "/a", DEPENDS, "header_equals('X-Key', ...)", ("header X-Key",)),
        (mine, "/a", ANY, "mine", ("function mine",)),
        (dependency(mine), "/a", ANY, "dependency(mine)", ("the dependency mine",)),
        (any_of(), "/a", NO, "any_of()", ()),
        (any_of(KEY, path_prefix("/a")), "/a/{x}", YES, "path_prefix('/a')", ()),
        (any_of(KEY, never), "/a", DEPENDS, "any_of(header_equals('X-Key', ...), never)", ("header X-Key",)),
        (any_of(mine, always), "/a", YES | {"raises"}, "always", ("function mine",)),
        (any_of(always, mine), "/a", YES, "always", ()),
        (any_of(mine, KEY), "/a", ANY, "any_of(mine, header_equals('X-Key', ...))", ("function mine", "header X-Key")),
        (all_of(), "/a", YES, "all_of()", ()),
        (all_of(always), "/a", YES, "always", ()),
        (all_of(always, always), "/a", YES, "all_of(always, always)", ()),
        (all_of(KEY, never), "/a", NO, "all_of(header_equals('X-Key', ...), never)", ()),
        (
            all_of(host_is("a"), KEY),
            "/a",
            DEPENDS,
            "all_of(host_is('a'), header_equals('X-Key', ...))",
            ("host", "header X-Key"),
        ),
        (all_of(mine, never), "/a", NO | {"raises"}, "all_of(mine, never)", ("function mine",)),
        (all_of(never, mine), "/a", NO, "all_of(never, mine)", ()),
        (not_(path_is("/a")), "/a", NO, "not_(path_is('/a'))", ()),
        (not_(any_of(mine, always)), "/a", NO | {"raises"}, "not_(any_of(mine, always))", ("function mine",)),
    ],
)
def test_outlook_on_a_route_is_exact(
    predicate: Any,  # noqa: ANN401 -- sync or async
    template: str,
    possible: frozenset[Any],
    by: str,
    on: tuple[str, ...],
) -> None:
    assert outlook_on(predicate, "GET", template) == Outlook(possible, by, on)


async def asked(_: Request) -> bool:
    raise AssertionError


def mine_on_url(read: Callable[[URL], object]) -> Predicate:
    return lambda request: bool(read(request.url))


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (method_in("GET"), True),
        (any_of(KEY, all_of(method_in("GET"), path_is("/a"))), True),
        (not_(all_of(KEY, method_in("POST"))), True),
        (all_of(KEY, path_is("/a")), None),
        (path_is("/b"), False),
        (dependency(asked), None),
        (mine_on_url(lambda url: url.path == "/a"), True),
        *((mine_on_url(read), None) for read in (str, "{}".format, repr, lambda url: getattr(url, "port", 0))),
        (mine_on_url(lambda url: url == "http://billing.example/a"), None),
        (mine_on_url(lambda url: url != "http://billing.example/a"), None),
    ],
)
def test_verdict_on_a_method_and_path_is_that_of_all_their_requests(
    predicate: Any,  # noqa: ANN401 -- sync or async
    expected: object,
) -> None:
    assert verdict_on(predicate, "GET", "/a") is expected


def test_outlook_on_any_method_depends_on_the_method() -> None:
    assert outlook_on(method_in("GET"), None, "/a") == Outlook(DEPENDS, "method_in('GET')", ("method",))


def test_outlook_on_a_hidden_app_counts_all_readings_of_the_path() -> None:
    assert outlook_on(path_prefix("/a"), None, "/b/{x}", hidden=True) == Outlook(
        DEPENDS, "path_prefix('/a')", ("path",)
    )
    assert outlook_on(path_is("/a"), None, "/b/a", hidden=True) == Outlook(frozenset({None}), "path_is('/a')", ())
    assert outlook_on(all_of(path_is("/a"), always), None, "/b/a", hidden=True).possible == {None}
    assert verdict_on(path_is("/a"), "GET", "/b/a") is False
    assert outlook_on(path_prefix("/a"), None, "/a/{x}", hidden=True) == Outlook(YES, "path_prefix('/a')", ())


def test_paths_in_a_predicate_are_those_of_all_its_parts() -> None:
    exempt = any_of(path_is("/b", "/a"), not_(all_of(path_prefix("/c"), KEY)), mine)
    assert list(paths_in(exempt)) == [("/a", False), ("/b", False), ("/c", True)]


@pytest.mark.parametrize(
    ("template", "path", "is_match", "is_match_below"),
    [
        ("/a", "/a", True, True),
        ("/a", "/b", False, False),
        ("/a/b", "/a", False, True),
        ("/aX", "/a", False, False),
        ("/a", "/aX", False, False),
        ("/a", "/a/b", False, False),
        ("/{x}", "/a", True, True),
        ("/{x}", "/a/b", False, False),
        ("/{x}/b", "/a/b", True, True),
        ("/{x}/b", "/a/c", False, False),
        ("/v{x}", "/v1", True, True),
        ("/{x:int}/b", "/1/c", False, False),
        ("/{x:path}/b", "/a/c/b", True, True),
        ("/{x:mine}", "/a/b", True, True),
        ("/a/{x:path}", "/b/c", False, False),
        ("/a", "/a/", True, False),
        ("/a/", "/a/", True, True),
        ("/{x:path}", "/a/", True, True),
        ("/a", "/", False, True),
    ],
)
def test_template_matches_paths_of_its_segments(template: str, path: str, is_match: bool, is_match_below: bool) -> None:
    found = template_matches(template, path, below=False), template_matches(template, path, below=True)
    assert found == (is_match, is_match_below)
