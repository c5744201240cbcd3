"""The built-in predicates: what each exempts, what it never does, and the arguments that it refuses."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

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
from fastapi_maintenance.typing import Predicate
from tests.strategies import METHODS, any_text, plain_paths
from tests.support import make_request, websocket_scope

header_bytes = st.binary(max_size=20) | st.sampled_from((b"secret", b"\xe9", b"\xc3\xa9", b"", b"\xff\x00\r\n"))
"""What may stand in a header: anything."""

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


def said_of_paths(predicate: Predicate, paths: list[str]) -> dict[str, bool | None]:
    """Return what a predicate says of each path."""
    return {path: predicate(make_request(path)) for path in paths}


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
def test_no_predicate_raises_for_any_request(
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


def test_always_and_never_are_what_they_say() -> None:
    assert [True, False] == [always(make_request()), never(make_request())]


@pytest.mark.parametrize(
    "predicate",
    [
        *(path_is(), path_prefix(), method_in(), host_is()),
        *(client_in(), client_in(trusted_proxies=["192.0.2.0/24"])),
    ],
)
def test_a_predicate_of_nothing_is_never(predicate: Predicate) -> None:
    headers = [("Host", "example.com"), ("X-Forwarded-For", "10.0.0.1")]
    said = [predicate(make_request(path, headers=headers)) for path in ("", "/", "/a")]
    assert said == [False] * 3


def test_a_handshake_is_asked_about_as_the_get_that_it_is() -> None:
    request = Request(as_http(websocket_scope("/a/ws", headers={"X-Key": "secret", "Host": "example.com"})))
    asked = [
        safe_method,
        method_in("GET"),
        path_prefix("/a"),
        header_equals("X-Key", "secret"),
        host_is("example.com"),
        client_in("192.0.2.1"),
    ]
    assert [True] * 6 == [predicate(request) for predicate in asked]


# Methods


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("GET", "HEAD", "OPTIONS", "QUERY", "TRACE"), True),
        (("POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "query", "GETS", ""), False),
    ],
)
def test_safe_method_is_true_of_the_methods_that_only_read(methods: tuple[str, ...], *, expected: bool) -> None:
    """RFC 9110 9.2.1, and QUERY. Methods are case-sensitive (9.1): `get` is a method that nobody has defined."""
    assert {safe_method(make_request(method=method)) for method in methods} == {expected}


def test_methods_are_given_in_any_case() -> None:
    read = method_in("get", "Head", "OPTIONS")
    assert [method for method in METHODS if read(make_request(method=method))] == ["GET", "HEAD", "OPTIONS"]
    assert read(make_request(method="get")) is None


# Paths


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/health", "/status/"], True),
        (["/healthy", "/health/live", "/status/live", "/", ""], False),
        (["/health/", "/health//", "/status", "/status//", "/Health/"], None),
        (["/Health", "/health;a=b", "/health\n", "/health/..", "/%68ealth", "//health"], None),
    ],
)
def test_a_path_is_exempt_that_is_exactly_one_of_the_paths(paths: list[str], *, expected: bool | None) -> None:
    assert said_of_paths(path_is("/health", "/status/"), paths) == dict.fromkeys(paths, expected)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            [
                *("/health", "/health/", "/health/live", "/health//live", "/health/a b/\u00e9"),
                *("/health/a/.b/..c/d..", "/health/...", "/health/./live", "/health/a%2e"),
            ],
            True,
        ),
        (["/healthy", "/health.json", "/a/health", "/", ""], False),
        (
            [
                *("/health;a=b", "/Health", "/HEALTH/live", "//health", "/./health", "/health\n", "/health/a\x00"),
                *("/health/\x85", "/health/%2e%2e/billing", "/%68ealth", "/%2568ealth", "/%25252568ealth"),
                *("/\uff48ealth/live", "/health./live", "/billing/.. /health", "health", "/health/.."),
                *("/health/../billing", "/health/a/../../billing", "/health/../health", "/health\\..\\billing"),
                *("/health/..\\billing", "/health/a\\..\\..\\billing", "/health/a\\..", "/health/..;/billing"),
                *("/health/..;a=b/billing", "/health/..;a=b"),
            ],
            None,
        ),
    ],
)
def test_a_prefix_covers_itself_and_what_lies_under_it(paths: list[str], *, expected: bool | None) -> None:
    assert said_of_paths(path_prefix("/health"), paths) == dict.fromkeys(paths, expected)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/health/", "/health/live"], True),
        (["/health", "/healthy"], False),
        (["/health/.."], None),
    ],
)
def test_a_prefix_that_ends_in_a_slash_covers_only_what_lies_under_it(
    paths: list[str], *, expected: bool | None
) -> None:
    assert said_of_paths(path_prefix("/health/"), paths) == dict.fromkeys(paths, expected)


def test_path_prefix_slash_covers_every_path_and_one_of_several_prefixes_is_enough() -> None:
    paths = ("/", "", "/a", "//", "/health/live", "/docs", "/billing")
    assert [path_prefix("/")(make_request(path)) for path in paths] == [True] * 7
    assert [path for path in paths if path_prefix("/health", "/docs")(make_request(path))] == ["/health/live", "/docs"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        (r"/v\d+/status", "/v1/status", True),
        (r"/v\d+/status", "/v22/status", True),
        (r"/v\d+/status", "/v1/status/x", False),
        (r"/v\d+/status", "/v1/status\n", None),
        (r"/v\d+/status", "/a/v1/status", False),
        (r"/v\d+/status", "/V1/status", None),
        (re.compile(r"/v\d+/status", re.IGNORECASE), "/V1/status", True),
        (r"/v\d+/status", "//v1/status", None),
        (r"/(?!billing).*", "/items", True),
        (r"/(?!billing).*", "/billing", False),
        (r"/(?!billing).*", "//billing", None),
        (r"/(?!billing).*", "/Billing", None),
        (r"/a|/b", "/b", True),
        (r"/a|/b", "/bc", False),
        (r"/", "", True),
        # A slash at the end
        (r"/v\d+/status", "/v1/status/", None),
        (r"/v\d+/status", "/v1/status//", None),
        (r"/v\d+/status/", "/v1/status", None),
        (r"/v\d+/status/", "/v1/status/", True),
        (r"/v\d+/status/", "/v1/health/", False),
        (r"/v\d+/", "/v1/", True),
        (r"/static/.*/", "/static/f.txt/", True),
        (r"(?!/static/f\.txt$).*", "/static/f.txt/", None),
        (r"(?!/static/f\.txt$).*", "/static/g.txt/", None),
        (r"^/static/f\.txt$", "/static/f.txt/", None),
        (r"/static/f\.txt\Z|/b$", "/static/f.txt/", None),
        (r"/static/f\.txt(?!.)", "/static/f.txt/", None),
        (r"^/v\d+/status/$", "/v1/status/", True),
        (r"/a[$]", "/a$", True),
        (r"/docs/.*", "/docs/a/", True),
        (r"/docs/.*", "/docs/", True),
        # Delimiters that came encoded
        (r".*/status", "/billing?/status", None),
        (r".*/status", "/billing%23/status", None),
        # Classes that tell the cases apart
        (r"/v1/[^A-Z]+", "/v1/status", True),
        (r"/v1/[^A-Z]+", "/v1/STATUS", None),
        (r"/v1/[^A-Z]+", "/v2/status", False),
        (r"/v1/[^/a-z\]]+", "/v1/STATUS", True),
        (r"/v1/[^/a-z\]]+", "/v1/]", False),
        (r"/v1/[^A-Za-z]+", "/v1/status", False),
        (r"/v1/[^s]+", "/v1/status", False),
        (r"/v1/[^A-M]+", "/v1/abc", True),
        (r"/v1/(?![A-Z]).*", "/v1/abc", None),
        (r"/items/[^/]+/", "/items/a/", True),
        (r"/(a|b)/", "/a/", True),
        (r"/(a|b)/", "/a", None),
        (r"/admin[^X]*", "//admin/x", None),
        (r"/admin[^X]*", "/Admin/x", None),
        (r"/files/[^A]+", "//files/a", None),
        (r"/admin(?!/Public).*", "//admin/public", None),
        (r"/v1/\[\^A-Z\]", "/v1/[^A-Z]", True),
        (r"(?!/Billing).*", "/billing", None),
        # Flags and comments
        (r"(?i)/a|(?#[^A-Z])/b", "/B", True),
        (re.compile(r"/a | /b  # [^A-Z]", re.VERBOSE), "/b", True),
    ],
)
def test_a_pattern_matches_the_whole_path(pattern: str | re.Pattern[str], path: str, *, expected: bool | None) -> None:
    assert expected is path_matches(pattern)(make_request(path))


DELIMITERS = ("?", "#", "%3F", "%3f", "%23", "%253F", "%2523", "\uff1f", "\uff03")


@given(
    st.sampled_from(("/billing", "/billing/x", "/other")),
    st.sampled_from(DELIMITERS),
    st.sampled_from(("", "/", "/status", "a=b")),
)
def test_a_delimiter_in_a_path_is_doubt_in_every_path_predicate(start: str, delimiter: str, end: str) -> None:
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
def test_a_path_that_differs_by_slashes_at_its_end_is_unknown_under_either_sign(
    path: str, given_: str, sent: str
) -> None:
    expected = True if given_ == sent else None
    request = make_request(path + sent)
    said = {predicate(request) for predicate in (path_is(path + given_), path_matches(re.escape(path) + given_))}
    assert said <= {expected, None}
    assert not_(path_is(path + given_))(request) is (False if expected else None)


def in_a_hidden_app(path: str) -> Request:
    """Return a request to an app behind a layer that hides its `root_path`."""
    request = make_request(path)
    request.scope[HIDDEN_APP] = True
    return request


@pytest.mark.parametrize(
    ("predicate", "path", "expected"),
    [
        (path_is("/x"), "/x", True),
        (path_is("/x"), "/y/z", False),
        (path_is("/x"), "/api/x", None),
        (path_is("/x"), "/api/x/", None),
        (path_is("/"), "/api", None),
        (path_prefix("/x"), "/api/v1/x/y", None),
        (path_prefix("/x"), "/api/v1/y", False),
        (path_prefix("/x"), "/a" * 62 + "/y", False),
        (path_prefix("/x"), "/a" * 64 + "/y", None),
        (path_matches("/x.*"), "/xy", True),
        (path_matches("/x"), "/y", None),
        (path_matches("(?!/x).*"), "/api/x", None),
        (path_matches("(?<!y)/z"), "/z", None),
    ],
)
def test_a_path_of_a_hidden_app_is_unknown_if_its_own_root_path_may_change_the_verdict(
    predicate: Predicate, path: str, *, expected: bool | None
) -> None:
    assert predicate(in_a_hidden_app(path)) is expected


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
def test_path_matches_matches_at_most_twice(path: str, *, hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "asked", 0)
    monkeypatch.setattr(paths, "re", SimpleNamespace(**{**vars(re), "compile": Counting}))
    predicate = path_matches(r"/(?:[a-z0-9]+/)*status")
    predicate(in_a_hidden_app(path) if hidden else make_request(path))
    assert 1 <= Counting.asked <= 2


@given(st.integers(0, 2_000), st.sampled_from(("/a", "/A", "//a", "/%61", "/a/")))
def test_a_path_of_a_hidden_app_has_at_most_64_readings(times: int, piece: str) -> None:
    assert len(paths._rests_of(f"/y{piece * times}") or ()) <= 64


@pytest.mark.parametrize("predicate", [path_is("/x"), path_prefix("/x"), path_matches("/x")])
@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/x", "", True),
        ("/api/x", "", False),
        ("/api/x", "/api", True),
        ("/x", "/api", True),
        ("/api/api/x", "/api", False),
        ("/apix", "/api", False),
        ("/api", "/api", False),
        ("/x/x", "/x", True),
        ("/x", "/x", False),
    ],
)
def test_a_path_is_relative_to_the_app(
    predicate: Predicate, path: str, root_path: str, *, expected: bool | None
) -> None:
    assert expected is predicate(make_request(path, root_path=root_path))


def test_the_path_of_the_app_itself_is_a_slash_and_a_path_is_decoded_once_by_the_server() -> None:
    for make in (path_is, path_prefix, path_matches):
        assert make("/")(make_request("/api", root_path="/api")) is True
        assert make("/a/b")(make_request("/a/b")) is True
        assert make("/a/b")(make_request("/a%2fb")) is None, "but a proxy behind may"


# Headers


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
def test_a_header_is_equal_if_it_is_sent_and_always_with_the_value(value: str, sent: list[bytes]) -> None:
    """Whatever the bytes are, and in either of the encodings that clients send."""
    utf_8 = value.encode("utf-8", "surrogatepass")
    latin_1 = value.encode("latin-1") if all(ord(letter) < 256 for letter in value) else utf_8
    expected = (sent != [] and set(sent) <= {utf_8, latin_1}) or (None if len(set(sent)) > 1 else False)
    assert expected is header_equals("X-Key", value)(sends(*(it.decode("latin-1") for it in sent)))


@pytest.mark.parametrize("name", ["X-Key", "x-key", "X-KEY"])
def test_the_name_of_a_header_is_given_in_any_case_and_its_value_exactly(name: str) -> None:
    for sent in ("", " secret", "secret ", "Secret", "secretx", "secre", "secret,secret"):
        assert header_equals(name, "secret")(sends(sent)) is False
        assert header_present(name)(sends(sent)) is header_present(name)(sends(sent, "other")) is True
    assert header_equals(name, "secret")(sends("secret")) is True
    for predicate in (header_equals(name, "secret"), header_present(name)):
        assert predicate(sends("secret", name="X-Other")) is predicate(sends()) is False


@pytest.mark.parametrize(
    ("predicate", "request_"),
    [
        (header_equals("X-Key", "secret"), sends("public")),
        (cookie_equals("key", "secret"), sends("key=public", name="Cookie")),
        (query_equals("key", "secret"), make_request(query="key=public")),
    ],
)
def test_secrets_are_compared_in_constant_time(
    predicate: Predicate, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `hmac.compare_digest` and nothing else: where that says yes, all is equal."""
    compared: list[set[bytes]] = []

    def say_yes(one: bytes, other: bytes) -> bool:
        compared.append({one, other})
        return True

    assert not predicate(request_)
    monkeypatch.setattr(hmac, "compare_digest", say_yes)
    assert predicate(request_)
    assert {b"secret", b"public"} in compared


# Queries


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), st.text(max_size=8))
@example("key", "a b+c&d=e%20", "a")
@example("key", "\u00e9\u20ac", "\u00e9")
@example("key", "\u00e9", "\u00c3\u00a9")
def test_a_query_parameter_is_equal_if_it_was_encoded_from_the_value(name: str, value: str, other: str) -> None:
    equal = query_equals(name, value)
    assert equal(make_request(query=urlencode([(name, value)]))) is True
    assert equal(make_request(query=urlencode([(name, value), (name + "x", other), (name, value)]))) is True
    assert (value == other) is equal(make_request(query=urlencode([(name, other)])))
    expected = True if value == other else None
    assert expected is equal(make_request(query=urlencode([(name, value), (name, other)])))
    assert expected is equal(make_request(query=urlencode([(name, other), (name, value)])))


@pytest.mark.parametrize("query", ["", "other=secret", "key=Secret", "KEY=secret", "key", "key=", "a;key=secret"])
def test_a_query_without_the_parameter_or_with_another_value_is_not_equal(query: str) -> None:
    assert not query_equals("key", "secret")(make_request(query=query))


def test_a_value_that_no_query_can_carry_is_equal_to_none() -> None:
    equal = query_equals("key", "\ud800")
    assert [False, False] == [equal(make_request(query=query)) for query in ("key=%ED%A0%80", "key=x")]


# Cookies


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (
            [
                *(["key=secret"], ["a=b; key=secret; c=d"], ["a=b;key=secret"], ['key="secret"']),
                *(["key=secret; key=secret"],),
            ],
            True,
        ),
        (
            [
                *(["key=secret; key=public"], ["key=public; key=secret"], ["key=secret", "key=public"]),
                *(["key=public; key=other"],),
            ],
            None,
        ),
        (
            [
                *(["key=public; key=public"], [], ["key=public"], ["key=Secret"], ["KEY=secret"], ["keys=secret"]),
                *(["other=secret"], ["key"], ["key="], ["secret"], ["=secret"]),
            ],
            False,
        ),
    ],
)
def test_a_cookie_is_equal_that_is_sent_with_the_value(requests: list[list[str]], *, expected: bool | None) -> None:
    said = {tuple(lines): cookie_equals("key", "secret")(sends(*lines, name="Cookie")) for lines in requests}
    assert said == dict.fromkeys(map(tuple, requests), expected)


@pytest.mark.parametrize("sent", [b"\xe9", b"\xc3\xa9"])
def test_a_cookie_beyond_ascii_is_equal_in_either_encoding(sent: bytes) -> None:
    assert cookie_equals("key", "\u00e9")(sends(f"key={sent.decode('latin-1')}", name="Cookie"))


# Hosts


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            [
                *("example.com", "EXAMPLE.com", "example.com:8000", "example.com:", "admin.example.org"),
                *("a.b.example.org:443", "[2001:db8::1]", "[2001:DB8::1]:8000", "192.0.2.1:80", "\xe9.example"),
            ],
            True,
        ),
        (["", "2001:db8::1", ":80", "example.com.", "example.com:http", "user@example.com:80:80"], None),
        (
            [
                *("www.example.com", "example.com.evil.example", "evilexample.com", "example.org", "evilexample.org"),
                *("[2001:db8::2]", "192.0.2.10"),
            ],
            False,
        ),
    ],
)
def test_a_host_is_compared_without_port_and_case(sent: list[str], *, expected: bool | None) -> None:
    hosts = host_is("Example.COM", "*.example.org", "[2001:db8::1]", "192.0.2.1", "\u00c9.example")
    assert {host: hosts(sends(host, name="Host")) for host in sent} == dict.fromkeys(sent, expected)


def test_to_which_host_a_request_without_a_host_or_with_two_is_is_unknown() -> None:
    assert host_is("example.com", "*.com")(make_request()) is None
    assert host_is("example.com")(sends("example.com", "example.org", name="Host")) is None
    assert host_is("example.com")(sends("example.com", "Example.com:80", name="Host")) is True


# Arguments


def calling(function: Callable[..., object], *args: object, **kwargs: object) -> Callable[[], object]:
    """Return the call, about which a type checker need not think."""
    return partial(function, *args, **kwargs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
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
    ],
)
def test_an_argument_of_the_wrong_type_is_a_type_error_that_names_it(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()

    assert message == str(caught.value)


A_TOKEN = "must be a token (letters, digits and !#$%&'*+-.^_`|~, no spaces), got"  # noqa: S105 -- not a password
A_READING = "must have no '..' segment, backslash, control character, '?' or '#', got"
A_HOST = "hosts must be names without scheme, port or path, at most with a leading '*.', got"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (calling(path_is, "health"), "paths must start with '/', got 'health'"),
        (calling(path_is, "/a", ""), "paths must start with '/', got ''"),
        *(
            (calling(make, path), f"{name} {A_READING} {path!r}")
            for make, name in ((path_is, "paths"), (path_prefix, "prefixes"))
            for path in ("/a/../b", "/a?b=c", "/a#b", "/a%3Fb", "/a\\b", "/a\n")
        ),
        (calling(path_prefix, "/a", "*"), "prefixes must start with '/', got '*'"),
        (calling(path_matches, "("), "pattern must be a regular expression, got '(': missing ), "),
        (calling(path_matches, "a{99999999999}"), "pattern must be a regular expression, got 'a{99999999999}': "),
        (calling(path_matches, ""), "pattern must not be empty, got ''"),
        (
            calling(header_equals, "X-Key", ""),
            (
                "value must not be empty, got '': any client that sends it empty would be exempt "
                "(use header_present('X-Key') to check that it is present)"
            ),
        ),
        (
            calling(cookie_equals, "a", ""),
            "value must not be empty, got '': any client that sends it empty would be exempt",
        ),
        (
            calling(query_equals, "a", ""),
            "value must not be empty, got '': any client that sends it empty would be exempt",
        ),
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
                *("example.com/", "::1", "[::1]:80", "[example.com]", "[]", "*.[::1]", "a b"),
            )
        ),
        (calling(client_in, "example.com"), "networks must be IP addresses or CIDR networks, got 'example.com': "),
        (calling(client_in, "10.0.0.1/8"), "networks must be IP addresses or CIDR networks, got '10.0.0.1/8': "),
        (
            calling(client_in, "::1", trusted_proxies=["10.0.0.1/8"]),
            "trusted_proxies must be IP addresses or CIDR networks, got '10.0.0.1/8': ",
        ),
    ],
)
def test_an_argument_of_the_wrong_form_is_a_value_error_that_names_it(make: Callable[[], object], message: str) -> None:
    end = "" if message.endswith((": ", ", ")) else "$"  # what Python says follows
    with pytest.raises(ValueError, match=f"^{re.escape(message)}{end}"):
        make()
