"""`predicates/` `methods.py`, `paths.py`, `values.py`: what each says of a request, and what it refuses."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import partial
from itertools import permutations
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from fastapi_maintenance._helpers import scope
from fastapi_maintenance._helpers.scope import HIDDEN_APP, as_http
from fastapi_maintenance.predicates import (
    always,
    client_in,
    cookie_equals,
    header_equals,
    header_present,
    host_is,
    method_in,
    never,
    not_,
    path_is,
    path_matches,
    path_prefix,
    paths,
    query_equals,
    safe_method,
)
from fastapi_maintenance.predicates.combinators import BuiltInPredicate
from fastapi_maintenance.typing import Predicate
from tests.strategies import METHODS, any_text, plain_paths
from tests.support import make_request, websocket_scope

header_bytes = st.binary(max_size=20) | st.sampled_from((b"secret", b"\xe9", b"\xc3\xa9", b"", b"\xff\x00\r\n"))
"""What a header may contain: anything."""

EVERY_PREDICATE: list[Predicate] = [
    always,
    never,
    safe_method,
    path_is("/a"),
    path_prefix("/a"),
    path_matches("/a+"),
    method_in("GET"),
    header_equals("X-Key", "secret"),
    header_equals("X-Key", "\u20ac"),
    header_present("X-Key"),
    query_equals("key", "secret"),
    query_equals("key", "\ud800"),
    cookie_equals("key", "secret"),
    host_is("example.com", "*.example.com", "[::1]"),
    client_in("10.0.0.0/8", trusted_proxies=["192.0.2.0/24"]),
]


def sends(*values: str, name: str = "X-Key") -> Request:
    """Return a request with a header for each of the values."""
    return make_request(headers=[(name, value) for value in values])


# All of them


@given(
    path=any_text,
    root_path=st.sampled_from(("", "/a", "/")) | any_text,
    method=st.sampled_from(METHODS) | any_text,
    query=st.binary(max_size=20),
    names=st.lists(st.sampled_from((b"x-key", b"cookie", b"host", b"x-forwarded-for")) | st.binary(), max_size=4),
    values=st.lists(header_bytes, min_size=4, max_size=4),
    peer=st.none() | st.tuples(st.just("192.0.2.1") | any_text, st.just(1)),
)
@example(
    path="", root_path="", method="", query=b"%ff&key&=", names=[b"cookie"], values=[b'key="\\377\\9";;='], peer=None
)
@example(path="/a", root_path="", method="GET", query=b"key=%ED%A0%80", names=[b"host"], values=[b"["], peer=("", 0))
def test_predicate_of_any_request_returns_a_verdict(
    *,
    path: str,
    root_path: str,
    method: str,
    query: bytes,
    names: list[bytes],
    values: list[bytes],
    peer: tuple[str, int] | None,
) -> None:
    request = make_request(peer=peer)
    sent = list(zip(names, values, strict=False))
    request.scope.update(path=path, root_path=root_path, method=method, query_string=query, headers=sent)
    assert {True, False, None} >= {predicate(request) for predicate in EVERY_PREDICATE}


@pytest.mark.parametrize(
    "predicate",
    [
        *(never, path_is(), path_prefix(), method_in(), host_is()),
        *(client_in(), client_in(trusted_proxies=["192.0.2.0/24"])),
    ],
)
def test_predicate_of_nothing_is_never(predicate: Predicate) -> None:
    headers = [("Host", "example.com"), ("X-Forwarded-For", "10.0.0.1")]
    requests = [make_request(path, headers=headers) for path in ("", "/", "/a")]
    assert [predicate(request) for request in requests] == [False] * 3
    assert [always(request) for request in requests] == [True] * 3


def test_predicate_of_a_handshake_reads_it_as_a_get() -> None:
    request = Request(as_http(websocket_scope("/a/ws", headers={"X-Key": "secret", "Host": "example.com"})))
    predicates = [
        *(safe_method, method_in("GET"), path_prefix("/a"), header_equals("X-Key", "secret"), host_is("example.com")),
        client_in("192.0.2.1"),
    ]
    assert [predicate(request) for predicate in predicates] == [True] * 6


# Paths

HEALTH = (
    *("/health", "/health/", "/health/live", "/health//live", "/health/a b/\u00e9"),
    *("/health/a/.b/..c/d..", "/health/...", "/health/./live", "/health/a%2e"),
    *(
        "/health/~7",
        "/health/a~b",
        "/health/backups~1",
        "/health/7:check",
        "/health/a:$x",
        "/health/a:/:$x",
        "/health/a~1",
    ),
)
UNCLEAR = (
    *("/health;a=b", "/Health", "/HEALTH/live", "//health", "/./health", "/health\n", "/health/a\x00"),
    *("/health/\x85", "/health/%2e%2e/billing", "/%68ealth", "/%2568ealth", "/%25252568ealth"),
    *("/\uff48ealth/live", "/health./live", "/billing/.. /health", "health", "/health/.."),
    *("/health/../billing", "/health/a/../../billing", "/health/../health", "/health\\..\\billing"),
    *("/health/..\\billing", "/health/a\\..\\..\\billing", "/health/a\\..", "/health/..;/billing"),
    *("/health/..;a=b/billing", "/health/..;a=b"),
    *(
        "/health::$DATA",
        "/health/a::$data",
        "/health/a:$I30:$INDEX_ALLOCATION/x",
    ),
)


@pytest.mark.parametrize(
    ("predicate", "expected", "paths"),
    [
        (path_is("/health", "/status/"), True, ("/health", "/status/")),
        (path_is("/health", "/status/"), False, ("/healthy", "/health/live", "/status/live", "/", "")),
        (path_is("/health", "/status/"), None, ("/health/", "/health//", "/status", "/status//", "/Health/")),
        (path_is("/health"), None, ("/Health", "/health;a=b", "/health\n", "/health/..", "/%68ealth", "//health")),
        (path_prefix("/health"), True, HEALTH),
        (path_prefix("/health"), False, ("/healthy", "/health.json", "/a/health", "/", "")),
        (path_prefix("/health"), None, UNCLEAR),
        (path_prefix("/health/"), True, ("/health/", "/health/live")),
        (path_prefix("/health/"), False, ("/health", "/healthy")),
        (path_prefix("/health/"), None, ("/health/..",)),
        (path_prefix("/"), True, ("/", "", "/a", "//", "/health/live", "/docs", "/billing")),
        (path_prefix("/health", "/docs"), True, ("/health/live", "/docs")),
        (path_prefix("/health", "/docs"), False, ("/billing", "/")),
    ],
)
def test_path_is_and_path_prefix_of_a_path_return_the_verdict(
    predicate: Predicate, expected: bool | None, paths: tuple[str, ...]
) -> None:
    assert {path: predicate(make_request(path)) for path in paths} == dict.fromkeys(paths, expected)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"/v\d+/status", {"/v1/status": True, "/v22/status": True, "/v1/status/x": False, "/v1/status\n": None}),
        (r"/v\d+/status", {"/a/v1/status": False, "/V1/status": None, "//v1/status": None}),
        (re.compile(r"/v\d+/status", re.IGNORECASE), {"/V1/status": True}),
        (r"/(?!billing).*", {"/items": True, "/billing": False, "//billing": None, "/Billing": None}),
        (r"/a|/b", {"/b": True, "/bc": False}),
        (r"/", {"": True}),
        # A slash at the end
        (r"/v\d+/status", {"/v1/status/": None, "/v1/status//": None}),
        (r"/v\d+/status/", {"/v1/status": None, "/v1/status/": True, "/v1/health/": False}),
        (r"/v\d+/", {"/v1/": True}),
        (r"/static/.*/", {"/static/f.txt/": True}),
        (r"(?!/static/f\.txt$).*", {"/static/f.txt/": None, "/static/g.txt/": None}),
        (r"^/static/f\.txt$", {"/static/f.txt/": None}),
        (r"/static/f\.txt\Z|/b$", {"/static/f.txt/": None}),
        (r"/static/f\.txt(?!.)", {"/static/f.txt/": None}),
        (r"^/v\d+/status/$", {"/v1/status/": True}),
        (r"/a[$]", {"/a$": True}),
        (r"/docs/.*", {"/docs/a/": True, "/docs/": True}),
        # Delimiters that came encoded
        (r".*/status", {"/billing?/status": None, "/billing%23/status": None}),
        # Classes of characters by case
        (r"/v1/[^A-Z]+", {"/v1/status": True, "/v1/STATUS": None, "/v2/status": False}),
        (r"/v1/[^/a-z\]]+", {"/v1/STATUS": True, "/v1/]": False}),
        (r"/v1/[^A-Za-z]+", {"/v1/status": False}),
        (r"/v1/[^s]+", {"/v1/status": False}),
        (r"/v1/[^A-M]+", {"/v1/abc": True}),
        (r"/v1/(?![A-Z]).*", {"/v1/abc": None}),
        (r"/items/[^/]+/", {"/items/a/": True}),
        (r"/(a|b)/", {"/a/": True, "/a": None}),
        (r"/admin[^X]*", {"//admin/x": None, "/Admin/x": None}),
        (r"/files/[^A]+", {"//files/a": None}),
        (r"/admin(?!/Public).*", {"//admin/public": None}),
        (r"/v1/\[\^A-Z\]", {"/v1/[^A-Z]": True}),
        (r"(?!/Billing).*", {"/billing": None}),
        # Flags and comments
        (r"(?i)/a|(?#[^A-Z])/b", {"/B": True}),
        (re.compile(r"/a | /b  # [^A-Z]", re.VERBOSE), {"/b": True}),
        (re.compile(r"(?-ix:/a b)", re.VERBOSE), {"/a b": True, "/A b": None, "/ab": False}),
        (r"(?-i:/Admin)|/a(?s-im:/B)", {"/Admin": True, "/ADMIN": None, "/a/b": None, "/c": False}),
    ],
)
def test_path_matches_of_a_path_returns_the_verdict(
    pattern: str | re.Pattern[str], expected: dict[str, bool | None]
) -> None:
    assert {path: path_matches(pattern)(make_request(path)) for path in expected} == expected


def test_path_with_a_short_name_is_unknown_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [make_request(path) for path in ("/HEALTH~1", "/health/a~1", "/health/REPORT~12.PDF/x")]
    assert [path_prefix("/health")(request) for request in requests] == [False, True, True]
    monkeypatch.setattr(scope, "_HAS_SHORT_NAMES", True)
    assert [path_prefix("/health")(request) for request in requests] == [None] * 3


DELIMITERS = ("?", "#", "%3F", "%3f", "%23", "%253F", "%2523", "\uff1f", "\uff03")


@given(
    st.sampled_from(("/billing", "/billing/x", "/other")),
    st.sampled_from(DELIMITERS),
    st.sampled_from(("", "/", "/status", "a=b")),
)
def test_path_with_a_delimiter_is_unknown(start: str, delimiter: str, end: str) -> None:
    request = make_request(start + delimiter + end)
    wanted = [
        path_prefix("/billing"),
        path_prefix("/"),
        path_is("/billing", start),
        path_matches(r"/billing.*"),
        path_matches(r".*"),
    ]
    assert [predicate(request) for predicate in wanted] == [None] * 5
    assert [not_(predicate)(request) for predicate in wanted] == [None] * 5


@given(plain_paths, st.sampled_from(("", "/", "//", "///")), st.sampled_from(("", "/", "//", "///")))
@example("/static/f.txt", "", "/")
@example("/static/f.txt", "", "//")
@example("/static/f.txt", "/", "")
def test_path_that_differs_by_slashes_at_its_end_is_unknown_under_either_sign(path: str, named: str, sent: str) -> None:
    expected = True if named == sent else None
    request = make_request(path + sent)
    said = {predicate(request) for predicate in (path_is(path + named), path_matches(re.escape(path) + named))}
    assert said <= {expected, None}
    assert not_(path_is(path + named))(request) is (False if expected else None)


def in_a_hidden_app(path: str) -> Request:
    """Return a request to an app behind a layer that hides its `root_path`."""
    request = make_request(path)
    request.scope[HIDDEN_APP] = True
    return request


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (path_is("/x"), {"/x": True, "/y/z": False, "/api/x": None, "/api/x/": None}),
        (path_is("/"), {"/api": None}),
        (path_prefix("/x"), {"/api/v1/x/y": None, "/api/v1/y": False, "/a" * 62 + "/y": False, "/a" * 64 + "/y": None}),
        (path_matches("/x.*"), {"/xy": True}),
        (path_matches("/x"), {"/y": None}),
        (path_matches("(?!/x).*"), {"/api/x": None}),
        (path_matches("(?<!y)/z"), {"/z": None}),
    ],
)
def test_path_of_a_hidden_app_is_unknown_if_its_own_root_path_may_change_the_verdict(
    predicate: Predicate, expected: dict[str, bool | None]
) -> None:
    assert {path: predicate(in_a_hidden_app(path)) for path in expected} == expected


class Counting:
    """A regular expression that counts how often it is matched."""

    asked = 0

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 -- as `re.compile` has them
        self._compiled = re.compile(*arguments)
        self.pattern, self.flags = self._compiled.pattern, self._compiled.flags

    def fullmatch(self, path: str) -> Any:  # noqa: ANN401 -- as of any pattern
        Counting.asked += 1
        return self._compiled.fullmatch(path)


@pytest.mark.parametrize("path", ["/status", "/status/", "/STATUS", "/other", "/a" * 30_000, "/a%2F" * 10_000])
@pytest.mark.parametrize("hidden", [False, True])
def test_path_matches_any_path_matches_at_most_twice(
    path: str, *, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "asked", 0)
    monkeypatch.setattr(paths, "re", SimpleNamespace(**{**vars(re), "compile": Counting}))
    predicate = path_matches(r"/(?:[a-z0-9]+/)*status")
    predicate(in_a_hidden_app(path) if hidden else make_request(path))
    assert 1 <= Counting.asked <= 2


@pytest.mark.parametrize("make", [path_is, path_prefix, path_matches])
def test_path_is_relative_to_the_app_and_was_decoded_once_by_the_server(make: Callable[[str], Predicate]) -> None:
    expected = {
        *[("/x", "", True), ("/api/x", "", False), ("/api/x", "/api", True), ("/x", "/api", True), ("/x", "/x", False)],
        *[("/api/api/x", "/api", False), ("/apix", "/api", False), ("/api", "/api", False), ("/x/x", "/x", True)],
    }
    assert {(path, root, make("/x")(make_request(path, root_path=root))) for path, root, _ in expected} == expected
    assert make("/")(make_request("/api", root_path="/api")) is True
    assert make("/a/b")(make_request("/a/b")) is True
    assert make("/a/b")(make_request("/a%2fb")) is None, "a proxy behind may decode it again"


# Values


@given(
    st.text(min_size=1, max_size=4) | st.sampled_from(("secret", "\u00e9", "\u20ac")),
    st.lists(header_bytes, max_size=3),
)
@example("\u00e9", [b"\xe9"])
@example("\u00e9", [b"\xc3\xa9"])
@example("\u00e9", [b"\xc3\xa9", b"\xe9"])
@example("\u20ac", ["\u20ac".encode()])
@example("secret", [b"secret", b"secret"])
@example("secret", [b"secret", b"public"])
@example("secret", [b"public", b"secret"])
@example("\ud800", [b"\xed\xa0\x80"])
@example("secret", [])
@example("secret", [b""])
@example("secret", [b"a", b"b"])
@example("secret", [b"a", b"a"])
def test_header_equals_is_true_if_all_values_are_the_value_in_an_encoding_that_clients_use(
    value: str, sent: list[bytes]
) -> None:
    utf_8 = value.encode("utf-8", "surrogatepass")
    latin_1 = value.encode("latin-1") if all(ord(letter) < 256 for letter in value) else utf_8
    expected = (sent != [] and set(sent) <= {utf_8, latin_1}) or (None if len(set(sent)) > 1 else False)
    assert header_equals("X-Key", value)(sends(*(it.decode("latin-1") for it in sent))) is expected


@pytest.mark.parametrize("name", ["X-Key", "x-key", "X-KEY"])
def test_header_name_is_matched_in_any_case_and_its_value_exactly(name: str) -> None:
    for value in ("", " secret", "secret ", "Secret", "secretx", "secre", "secret,secret"):
        assert header_equals(name, "secret")(sends(value)) is False
        assert header_present(name)(sends(value)) is header_present(name)(sends(value, "other")) is True
    assert header_equals(name, "secret")(sends("secret")) is True
    for predicate in (header_equals(name, "secret"), header_present(name)):
        assert predicate(sends("secret", name="X-Other")) is predicate(sends()) is False


@pytest.mark.parametrize("predicate", [header_equals("X-Key", "secret"), header_present("X-Key")])
def test_predicate_on_a_header_leaves_the_headers_of_any_kind_to_the_app(predicate: Predicate) -> None:
    request = make_request()
    request.scope["headers"] = iter([(b"x-key", b"secret")])  # ASGI: an iterable
    assert predicate(request) is True
    assert list(request.scope["headers"]) == [(b"x-key", b"secret")]


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), st.text(max_size=8))
@example("key", "a b+c&d=e%20", "a")
@example("key", "\u00e9\u20ac", "\u00e9")
@example("key", "\u00e9", "\u00c3\u00a9")
def test_query_equals_is_true_if_the_parameter_was_encoded_from_the_value(name: str, value: str, other: str) -> None:
    equal = query_equals(name, value)
    assert equal(make_request(query=urlencode([(name, value)]))) is True
    assert equal(make_request(query=urlencode([(name, value), (name + "x", other), (name, value)]))) is True
    assert equal(make_request(query=urlencode([(name, other)]))) is (value == other)
    expected = True if value == other else None
    for pairs in permutations([(name, value), (name, other)]):
        assert equal(make_request(query=urlencode(pairs))) is expected


@pytest.mark.parametrize(
    ("predicate", "request_"),
    [
        (header_equals("X-Key", "secret"), sends("public")),
        (cookie_equals("key", "secret"), sends("key=public", name="Cookie")),
        (query_equals("key", "secret"), make_request(query="key=public")),
    ],
)
def test_value_is_compared_in_constant_time(
    predicate: Predicate, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `hmac.compare_digest` and nothing else: if it says yes, everything is equal."""
    compared: list[set[bytes]] = []

    def say_yes(one: bytes, other: bytes) -> bool:
        compared.append({one, other})
        return True

    assert not predicate(request_)
    monkeypatch.setattr(hmac, "compare_digest", say_yes)
    assert predicate(request_)
    assert {b"secret", b"public"} in compared


def cookies(*lines: str) -> Request:
    return sends(*lines, name="Cookie")


HOSTS = host_is("Example.COM", "*.example.org", "[2001:db8::1]", "192.0.2.1", "\u00c9.example")
KEY, KEY_COOKIE = query_equals("key", "secret"), cookie_equals("key", "secret")
READS, WRITES = ("GET", "HEAD", "OPTIONS", "QUERY", "TRACE"), ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND")
READ = method_in("get", "Head", "OPTIONS")


@pytest.mark.parametrize(
    ("predicate", "expected", "requests"),
    [
        # RFC 9110 9.2.1, and QUERY. Methods are case-sensitive (9.1): nobody has defined `get`.
        (safe_method, True, [make_request(method=method) for method in READS]),
        (safe_method, False, [make_request(method=method) for method in (*WRITES, "get", "query", "GETS", "")]),
        (READ, True, [make_request(method=method) for method in ("GET", "HEAD", "OPTIONS")]),
        (READ, False, [make_request(method=method) for method in WRITES]),
        (READ, None, [make_request(method="get")]),
        (
            KEY,
            False,
            [
                make_request(query=query)
                for query in ("", "other=secret", "key=Secret", "KEY=secret", "key", "key=", "a;key=secret")
            ],
        ),
        (query_equals("key", "\ud800"), False, [make_request(query=query) for query in ("key=%ED%A0%80", "key=x")]),
        (
            KEY_COOKIE,
            True,
            [cookies(line) for line in ("key=secret", "a=b; key=secret; c=d", "a=b;key=secret", 'key="secret"')],
        ),
        (KEY_COOKIE, True, [cookies("key=secret; key=secret")]),
        (
            KEY_COOKIE,
            None,
            [cookies(f"key={one}; key={other}") for one, other in permutations(["secret", "public", "other"], 2)],
        ),
        (KEY_COOKIE, None, [cookies("key=secret", "key=public")]),
        (KEY_COOKIE, False, [cookies(), *map(cookies, ("key=public; key=public", "key=public", "key=Secret"))]),
        (KEY_COOKIE, False, [*map(cookies, ("KEY=secret", "keys=secret", "other=secret"))]),
        (KEY_COOKIE, False, [*map(cookies, ("key", "key=", "secret", "=secret"))]),
        (cookie_equals("key", "\u00e9"), True, [cookies("key=\xe9"), cookies("key=\xc3\xa9")]),
        (
            HOSTS,
            True,
            [
                sends(host, name="Host")
                for host in (
                    *("example.com", "EXAMPLE.com", "example.com:8000", "example.com:", "admin.example.org"),
                    *("a.b.example.org:443", "[2001:db8::1]", "[2001:DB8::1]:8000", "192.0.2.1:80", "\xe9.example"),
                )
            ],
        ),
        (
            HOSTS,
            None,
            [
                sends(host, name="Host")
                for host in (
                    *("", "2001:db8::1", ":80", "example.com.", "example.com:http", "user@example.com:80:80"),
                    *("user@example.com", "example.com?", "example.com#x", "example.com\\x", "%61.com"),
                    *("x@a.example.org", ".example.org", "a..example.org", "a,b.example.org", "a/b.example.org"),
                )
            ],
        ),
        (
            HOSTS,
            False,
            [
                sends(host, name="Host")
                for host in (
                    *("www.example.com", "example.com.evil.example", "evilexample.com", "example.org"),
                    *("evilexample.org", "[2001:db8::2]", "192.0.2.10"),
                )
            ],
        ),
        (host_is("example.com", "*.com"), None, [make_request(), sends("example.com", "a.com", name="Host")]),
        (host_is("example.com"), True, [sends("example.com", "Example.com:80", name="Host")]),
    ],
)
def test_predicate_of_a_method_a_parameter_a_cookie_or_a_host_returns_the_verdict(
    predicate: Predicate, expected: bool | None, requests: list[Request]
) -> None:
    assert [predicate(request) for request in requests] == [expected] * len(requests)


# Arguments


def calling(function: Callable[..., object], *args: object, **kwargs: object) -> Callable[[], object]:
    """Return the call, unchecked by type checkers."""
    return partial(function, *args, **kwargs)


A_TOKEN = "must be a token (letters, digits and !#$%&'*+-.^_`|~, no spaces), got"  # noqa: S105 -- not a password
A_READING = "must have no '..' segment, backslash, control character, '?', '#', or Windows name such as 'a::$DATA', got"
A_HOST = "hosts must be valid names without scheme, port or path, at most with a leading '*.', got"


WRONG_TYPES: list[tuple[Callable[[], object], str]] = [
    (calling(path_is, 5), "paths must be a str, got int 5"),
    (calling(path_is, "/a", None), "paths must be a str, got NoneType None"),
    (calling(path_prefix, ["/a"]), "prefixes must be a str, got list ['/a']"),
    (calling(path_prefix, b"/a"), "prefixes must be a str, got bytes b'/a'"),
    (calling(path_matches, 5), "pattern must be a str, got int 5"),
    (calling(path_matches, None), "pattern must be a str, got NoneType None"),
    (calling(path_matches, b"/a"), "pattern must be a str, got bytes b'/a'"),
    (calling(path_matches, re.compile(b"/a")), "pattern must be a str, got bytes b'/a'"),
    (calling(method_in, "GET", 5), "methods must be a str, got int 5"),
    (calling(header_equals, 5, "a"), "name must be a str, got int 5"),
    (calling(header_equals, "a", None), "value must be a str, got NoneType None"),
    (calling(header_present, None), "name must be a str, got NoneType None"),
    (calling(query_equals, 5, "a"), "name must be a str, got int 5"),
    (calling(query_equals, "a", 5), "value must be a str, got int 5"),
    (calling(cookie_equals, 5, "a"), "name must be a str, got int 5"),
    (calling(cookie_equals, "a", 5), "value must be a str, got int 5"),
    (calling(host_is, 5), "hosts must be a str, got int 5"),
    (calling(client_in, 5), "networks must be a str, got int 5"),
    (
        calling(client_in, "::1", trusted_proxies="::1"),
        "trusted_proxies must be a collection of addresses and networks, got str '::1'",
    ),
    (
        calling(client_in, "::1", trusted_proxies=None),
        "trusted_proxies must be a collection of addresses and networks, got NoneType None",
    ),
    (calling(client_in, "::1", trusted_proxies=[5]), "trusted_proxies must be a str, got int 5"),
]
EMPTY = "value must not be empty, got '': any client that sends it empty would be exempt"
WRONG_VALUES: list[tuple[Callable[[], object], str]] = [
    (calling(path_is, "health"), "paths must start with '/', got 'health'"),
    (calling(path_is, "/a", ""), "paths must start with '/', got ''"),
    *(
        (calling(make, path), f"{name} {A_READING} {path!r}")
        for make, name in ((path_is, "paths"), (path_prefix, "prefixes"))
        for path in ("/a/../b", "/a?b=c", "/a#b", "/a%3Fb", "/a\\b", "/a\n", "/a::$DATA")
    ),
    (calling(path_prefix, "/a", "*"), "prefixes must start with '/', got '*'"),
    (calling(path_matches, "("), "pattern must be a regular expression, got '(': missing ), "),
    (calling(path_matches, "a{99999999999}"), "pattern must be a regular expression, got 'a{99999999999}': "),
    (calling(path_matches, ""), "pattern must not be empty, got ''"),
    (
        calling(header_equals, "X-Key", ""),
        (f"{EMPTY} (use header_present('X-Key') to check that it is present)"),
    ),
    (
        calling(cookie_equals, "a", ""),
        "value must not be empty, got '': any client that sends it empty would be exempt",
    ),
    (calling(query_equals, "a", ""), EMPTY),
    (calling(query_equals, "", "a"), "name must not be empty, got ''"),
    (calling(method_in, "GET POST"), f"methods {A_TOKEN} 'GET POST'"),
    (calling(method_in, ""), f"methods {A_TOKEN} ''"),
    (calling(header_equals, "X-Key:", "a"), f"name {A_TOKEN} 'X-Key:'"),
    (calling(header_equals, "", "a"), f"name {A_TOKEN} ''"),
    (calling(header_present, "\u00e9"), f"name {A_TOKEN} '\u00e9'"),
    (calling(cookie_equals, "a=b", "c"), f"name {A_TOKEN} 'a=b'"),
    *(
        (calling(host_is, "example.com", host), f"{A_HOST} {host!r}")
        for host in (
            *("", " ", "*", "*.", "*example.com", "a.*.example.com", "example.com:80", "http://example.com"),
            *("example.com/", "::1", "[::1]:80", "[example.com]", "[]", "*.[::1]", "a b", "a@b", "a?b", "a#b", "a,b"),
            *("example.com.", ".example.com", "*.*.example.com", "%61.com", "a\\b"),
        )
    ),
]


@pytest.mark.parametrize(
    ("error", "make", "message"),
    [*((TypeError, *row) for row in WRONG_TYPES), *((ValueError, *row) for row in WRONG_VALUES)],
)
def test_argument_of_the_wrong_type_or_form_is_refused_by_its_name(
    error: type[Exception], make: Callable[[], object], message: str
) -> None:
    end = "" if message.endswith((": ", ", ")) else "$"  # Python's own message follows
    with pytest.raises(error, match=f"^{re.escape(message)}{end}"):
        make()


@pytest.mark.parametrize(
    ("predicate", "shown", "depends_on"),
    [
        (path_is("/a", "/b"), "path_is('/a', '/b')", ("path",)),
        (path_prefix("/a", "/b"), "path_prefix('/a', '/b')", ("path",)),
        (path_matches("/a.*"), "path_matches('/a.*')", ("path",)),
        (method_in("GET", "PUT"), "method_in('GET', 'PUT')", ("method",)),
        (header_present("X-Key"), "header_present('X-Key')", ("header X-Key",)),
        (header_equals("X-Key", "secret"), "header_equals('X-Key', ...)", ("header X-Key",)),
        (query_equals("key", "secret"), "query_equals('key', ...)", ("query parameter key",)),
        (cookie_equals("key", "secret"), "cookie_equals('key', ...)", ("cookie key",)),
        (host_is("a.example"), "host_is('a.example')", ("host",)),
        (client_in("10.0.0.0/8"), "client_in('10.0.0.0/8')", ("client address",)),
    ],
)
def test_predicate_shows_how_it_was_made_without_its_secret_and_what_it_depends_on(
    predicate: BuiltInPredicate, shown: str, depends_on: tuple[str, ...]
) -> None:
    assert (repr(predicate), predicate.on) == (shown, depends_on)
