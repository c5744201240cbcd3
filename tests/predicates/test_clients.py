"""`predicates/clients.py`: which address a request comes from, and what trusted proxies may say of it."""

from __future__ import annotations

import re
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.predicates import client_in
from tests.support import make_request

PROXIES = ("10.0.0.0/8", "2001:db8:aaaa::/48")
ANYWHERE = ("0.0.0.0/0", "::/0")
PEER = "10.0.0.1"


def is_read_as(
    expected: str | None, *forwarded: str, peer: str | None = PEER, proxies: tuple[str, ...] = PROXIES
) -> bool:
    """Return whether the client is known to have this address, or with None, whether its address is unknown."""
    headers = [("X-Forwarded-For", line) for line in forwarded]
    request = make_request(headers=headers, peer=None if peer is None else (peer, 1))
    if expected is None:
        return client_in(*ANYWHERE, trusted_proxies=proxies)(request) is None
    return client_in(expected, trusted_proxies=proxies)(request) is True


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["192.0.2.1", " 192.0.2.1\t", "192.0.2.1:443", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443"], "192.0.2.1"),
        (["2001:db8::1", "2001:DB8:0::1", "[2001:db8::1]", "[2001:db8::1]:443"], "2001:db8::1"),
        (["fe80::1%eth0", "[fe80::1%eth0]:443"], "fe80::1"),
        (
            [
                *("unknown", "_hidden", "192.0.2", "192.0.2.1.5", "192.0.2.256", "192.0.2.01", "3221225985"),
                *("0x7f.0.0.1", "192.0.2.0/24", "for=192.0.2.1", '"192.0.2.1"', "2001:db8::1:443:1:1:1:1:1", "["),
                *(
                    "192.0.2.1:evil",
                    "192.0.2.1:-1",
                    "[2001:db8::1]evil",
                    "[2001:db8::1]:x",
                    "[2001:db8::1",
                    "192.0.2.1]",
                ),
                *("[]:443", ":", "\u0661\u0669\u0662.0.2.1".encode().decode("latin-1")),
            ],
            None,
        ),
    ],
)
def test_client_in_reads_an_entry_with_or_without_a_port(entries: list[str], expected: str | None) -> None:
    assert [entry for entry in entries if not is_read_as(expected, entry)] == []


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("testclient", None),
        ("", None),
        ("/run/app.sock", None),
        (None, None),
    ],
)
def test_client_in_without_a_trusted_proxy_uses_the_peer(peer: str | None, expected: str | None) -> None:
    assert is_read_as(expected, "10.0.0.9", peer=peer, proxies=())
    assert is_read_as(expected, "10.0.0.9", peer=peer)
    assert is_read_as(None, "10.0.0.9", peer=None, proxies=ANYWHERE)


TRUSTED_ENTRIES = {
    "10.0.0.1": "10.0.0.1",
    "10.9.9.9:8080": "10.9.9.9",
    "2001:db8:aaaa::1": "2001:db8:aaaa::1",
    "[2001:db8:aaaa::2]:443": "2001:db8:aaaa::2",
    "::ffff:10.1.1.1": "10.1.1.1",
}
OTHER_ENTRIES = {
    "192.0.2.7": "192.0.2.7",
    "11.0.0.1:80": "11.0.0.1",
    "2001:db8:bbbb::1": "2001:db8:bbbb::1",
    "unknown": None,
    "10.0.0.0/8": None,
    "10.0.0.1.evil.example": None,
}
ENTRIES = TRUSTED_ENTRIES | OTHER_ENTRIES


@given(
    st.sampled_from(list(ENTRIES)),
    st.lists(
        st.lists(st.sampled_from(list(TRUSTED_ENTRIES)) | st.sampled_from(list(ENTRIES)), min_size=1, max_size=4),
        max_size=3,
    ),
    st.sampled_from((",", ", ", " ,\t")),
)
@example("10.0.0.1", [["192.0.2.7", "11.0.0.1:80", "10.0.0.1"]], ",")
@example("10.0.0.1", [["192.0.2.7"], ["10.0.0.1"]], ",")
@example("10.0.0.1", [["192.0.2.7", "unknown"]], ",")
@example("10.0.0.1", [["10.0.0.1", "10.9.9.9:8080"]], ",")
@example("192.0.2.7", [["10.0.0.1"]], ",")
@example("10.0.0.1", [], ",")
def test_client_in_uses_the_first_address_from_the_right_that_is_not_a_trusted_proxy(
    peer: str, lines: list[list[str]], comma: str
) -> None:
    """Anybody can write the left part of `X-Forwarded-For`; each proxy appends its peer on the right.

    Several lines are one list (RFC 9110 5.3). If all are trusted, the leftmost is the client.
    """
    path = [entry for line in lines for entry in line] + [peer]
    untrusted = [entry for entry in path if entry not in TRUSTED_ENTRIES]
    expected = ENTRIES[untrusted[-1] if untrusted else path[0]]

    assert is_read_as(expected, *(comma.join(line) for line in lines), peer=peer)


def test_client_in_skips_empty_entries() -> None:
    """As RFC 9110 5.6.1 says of every list."""
    texts = ("192.0.2.7,", "192.0.2.7, ,", ",192.0.2.7 ,\t, 10.0.0.1,")
    assert [is_read_as("192.0.2.7", text) for text in texts] == [True] * 3
    assert is_read_as(PEER, " , ")


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7"], ["192.0.1.255", "192.0.3.0", "::192.0.2.1"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db7::1", "2001:db9::", "192.0.2.1"]),
        ("2001:db8::7", ["2001:0db8:0::0007"], ["2001:db8::8"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"], ["192.0.2.2", "::1"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0", "10.255.255.255"], ["11.0.0.1", "::ffff:11.0.0.1"]),
        ("::ffff:0:0/96", ["0.0.0.1", "255.255.255.255"], ["::1"]),
        ("::/0", ["::1", "2001:db8::1"], ["192.0.2.1"]),
    ],
)
def test_client_in_network_that_contains_the_address_is_true(
    network: str, inside: list[str], outside: list[str]
) -> None:
    """A network of mapped addresses is the network of their IPv4 addresses."""
    is_inside = client_in("198.51.100.0/24", network)
    assert {is_inside(make_request(peer=(address, 1))) for address in inside} == {True}
    assert {is_inside(make_request(peer=(address, 1))) for address in outside} == {False}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("10.0.0.1/8", "has host bits set"),
        ("2001:db8::1/32", "has host bits set"),
        ("10.0.0.0/33", "does not appear to be an IPv4 or IPv6 network"),
        ("localhost", "does not appear to be an IPv4 or IPv6 network"),
        ("", "does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_client_in_invalid_network_is_refused_with_the_reason(value: str, reason: str) -> None:
    for name, call in (
        ("networks", partial(client_in, "10.0.0.0/8", value)),
        ("trusted_proxies", partial(client_in, trusted_proxies=[value])),
    ):
        text = f"{name} must be IP addresses or CIDR networks, got {value!r}: "
        with pytest.raises(ValueError, match=f"^{re.escape(text)}.*{reason}"):
            call()


def test_client_in_accepts_trusted_proxies_from_any_iterable() -> None:
    behind = client_in("192.0.2.7", trusted_proxies=iter(PROXIES))
    requests = [make_request(headers=[("X-Forwarded-For", "192.0.2.7")], peer=(PEER, 1))] * 2
    assert [behind(request) for request in requests] == [True, True]
