"""The predicate on the address of the client, also behind proxies."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance.predicates.combinators import BuiltInPredicate, Verdict

_Address = IPv4Address | IPv6Address
_MAPPED_PREFIX = 96  # bits of ::ffff:0:0/96 (RFC 4291 2.5.5.2), the IPv4-mapped IPv6 addresses
_WITH_PORT = r"\[([^\]]+)\](?::[0-9]*)?|([^:]+):[0-9]*"
_Networks = tuple[IPv4Network | IPv6Network, ...]


def client_in(*networks: str, trusted_proxies: Iterable[str] = ()) -> BuiltInPredicate:
    """Exempt clients by address: `client_in("10.0.0.0/8", "2001:db8::7")`.

    >>> is_internal = client_in("10.0.0.0/8")
    >>> is_internal(get("/", peer=("10.1.2.3", 50_000))), is_internal(get("/", peer=("192.0.2.1", 50_000)))
    (True, False)

    The client is the peer that the server reports. If the peer is one of `trusted_proxies`, `X-Forwarded-For` is
    walked from the right, and the first address that is not a trusted proxy is the client. An entry that is not an
    address ends the walk; the client, and so the verdict, is then unknown.

    If the server itself rewrites the peer from that header, its result is trusted: `uvicorn --forwarded-allow-ips='*'`
    uses the first address, which any client can forge. Give it the addresses of the proxies, or `--no-proxy-headers`
    and list them here.

    Args:
        networks: IPv4 or IPv6 addresses, and networks in CIDR notation.
        trusted_proxies: The same, for the proxies to trust.

    Raises:
        TypeError: A network is not a `str`, or `trusted_proxies` is a single `str`.
        ValueError: A network is not a valid address or network; the host bits of a network must be zero.
    """
    wanted = _networks_of("networks", networks)
    trusted = _networks_of("trusted_proxies", trusted_proxies)

    def client_is_in(request: Request, /) -> Verdict:
        client = _client_address(request, trusted)
        return None if client is None else any(client in network for network in wanted)

    return BuiltInPredicate(client_is_in, "client_in", args=networks, on=("client address",))


def _networks_of(name: str, values: object) -> _Networks:
    """Parse addresses and CIDR networks, IPv4-mapped ones as IPv4."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        reject(name, "a collection of addresses and networks", values)
    networks: list[IPv4Network | IPv6Network] = []
    for value in values:
        try:
            network = ip_network(check_str(name, value))
        except ValueError as error:
            msg = f"{name} must be IP addresses or CIDR networks, got {value!r}: {error}"
            raise ValueError(msg) from None
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        length = network.prefixlen - _MAPPED_PREFIX
        networks.append(network if mapped is None or length < 0 else ip_network((mapped, length)))
    return tuple(networks)


def _client_address(request: Request, trusted: _Networks) -> _Address | None:
    """Return the first address that is not a trusted proxy's, starting from the peer."""
    address = _address_of(request.client.host) if request.client else None
    lines = request.headers.getlist("x-forwarded-for")
    entries = [entry for line in lines for entry in line.split(",") if entry.strip()]  # RFC 9110 5.6.1: skip empty ones
    while address is not None and entries and any(address in network for network in trusted):
        address = _address_of(entries.pop())
    return address


def _address_of(text: str) -> _Address | None:
    """Parse an address. Some proxies add the port: `192.0.2.1:443` or `[2001:db8::1]:443`."""
    text = text.strip()
    match = re.fullmatch(_WITH_PORT, text)
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    # A server that listens on both families reports an IPv4 peer as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address
