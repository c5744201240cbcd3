"""Which address a request comes from, and what proxies may say of it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.predicates.clients import _client_address, _networks_of, client_in
from tests.support import make_request

PROXIES = ("10.0.0.0/8", "2001:db8:aaaa::/48")
TRUSTED = _networks_of("trusted_proxies", PROXIES)
PEER = "10.0.0.1"


def address_of(text: str) -> str | None:
    """Return what an entry by a trusted proxy is read as."""
    address = _client_address(make_request(headers=[("X-Forwarded-For", text)], peer=(PEER, 1)), TRUSTED)
    return None if address is None else str(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("unknown", None),
        ("_hidden", None),
        ("192.0.2", None),
        ("192.0.2.1.5", None),
        ("192.0.2.256", None),
        ("192.0.2.01", None),
        ("3221225985", None),
        ("0x7f.0.0.1", None),
        ("192.0.2.0/24", None),
        ("for=192.0.2.1", None),
        ('"192.0.2.1"', None),
        ("2001:db8::1:443:1:1:1:1:1", None),
        ("[", None),
        ("[]:443", None),
        (":", None),
        ("\u0661\u0669\u0662.0.2.1".encode().decode("latin-1"), None),
    ],
)
def test_an_entry_is_an_address_with_or_without_a_port_or_nothing(text: str, expected: str | None) -> None:
    assert expected == address_of(text)


@given(st.binary().map(lambda it: it.decode("latin-1")))
def test_any_entry_is_an_address_or_nothing(text: str) -> None:
    address = address_of(text)
    assert address is None or str(ip_address(address)) == address


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
    ],
)
def test_without_trusted_proxies_the_client_is_the_peer_whatever_headers_say(peer: str, expected: str | None) -> None:
    request = make_request(headers=[("X-Forwarded-For", "10.0.0.9"), ("Forwarded", "for=10.0.0.9")], peer=(peer, 1))
    address = _client_address(request, ())
    assert expected == (None if address is None else str(address))


def test_a_request_without_peer_has_no_address_whatever_headers_say() -> None:
    request = make_request(headers=[("X-Forwarded-For", "10.0.0.9")], peer=None)
    assert _client_address(request, TRUSTED) is None
    assert _client_address(request, _networks_of("trusted_proxies", ["0.0.0.0/0", "::/0"])) is None


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
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    peer: str, lines: list[list[str]], comma: str
) -> None:
    """Who sends `X-Forwarded-For` writes what it likes on the left; each proxy adds whom it sees on the right.

    Several lines are one list (RFC 9110 5.3). Where all are trusted, the leftmost is the client.
    """
    headers = [("X-Forwarded-For", comma.join(line)) for line in lines]
    path = [entry for line in lines for entry in line] + [peer]
    untrusted = [entry for entry in path if entry not in TRUSTED_ENTRIES]
    expected = ENTRIES[untrusted[-1] if untrusted else path[0]]

    address = _client_address(make_request(headers=headers, peer=(peer, 1)), TRUSTED)
    assert expected == (None if address is None else str(address))


def test_empty_entries_are_passed_over() -> None:
    """RFC 9110 5.6.1 has it so for every list."""
    for text in ("192.0.2.7,", "192.0.2.7, ,", ",192.0.2.7 ,\t, 10.0.0.1,"):
        assert "192.0.2.7" == address_of(text)
    assert PEER == address_of(" , ")


def test_networks_of_mapped_addresses_are_those_of_ipv4_addresses() -> None:
    values = ["::ffff:192.0.2.1", "::ffff:10.0.0.0/104", "::ffff:0:0/96", "::/0", "2001:db8::/32"]
    expected = ["192.0.2.1/32", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32"]
    assert expected == [str(network) for network in _networks_of("networks", values)]


def test_an_address_lies_in_networks_of_its_own_family() -> None:
    is_inside = client_in("192.0.2.0/24", "2001:db8::/32")
    inside = ["192.0.2.0", "192.0.2.255", "2001:db8::", "2001:db8:ffff::1"]
    outside = ["192.0.1.255", "192.0.3.0", "2001:db7::1", "2001:db9::", "::192.0.2.1"]
    assert [True] * 4 == [is_inside(make_request(peer=(address, 1))) for address in inside]
    assert [False] * 5 == [is_inside(make_request(peer=(address, 1))) for address in outside]
    assert client_in()(make_request(peer=("192.0.2.1", 1))) is False


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
def test_what_is_no_network_is_refused_with_the_parameter_the_value_and_the_reason(value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^networks must be IP addresses or CIDR networks, got '") as caught:
        _networks_of("networks", ["10.0.0.0/8", value])

    assert f"got {value!r}: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.0/8", "networks must be a collection of addresses and networks, got str '10.0.0.0/8'"),
        (None, "networks must be a collection of addresses and networks, got NoneType None"),
        (10, "networks must be a collection of addresses and networks, got int 10"),
        ([10], "networks must be a str, got int 10"),
        (b"::1", "networks must be a str, got int 58"),
    ],
)
def test_networks_are_a_collection_of_str(value: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        _networks_of("networks", value)

    assert message == str(caught.value)


def test_networks_may_come_from_any_iterable() -> None:
    expected = _networks_of("networks", ["10.0.0.0/8", "::1"])
    assert expected == _networks_of("networks", iter(["10.0.0.0/8", "::1"]))
