"""Which address does a request come from?"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import Request

from fastapi_maintenance._checks import check_str, reject

__all__ = ["client_address", "lies_in", "networks_of"]

_Address = IPv4Address | IPv6Address
_MAPPED_PREFIX = 96  # bits of ::ffff:0:0/96 (RFC 4291 2.5.5.2), in which IPv4 addresses stand as IPv6 ones
_Networks = tuple[IPv4Network | IPv6Network, ...]


def networks_of(name: str, values: object) -> _Networks:
    """Read a collection of addresses and CIDR networks; host bits of a network must be zero."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        reject(name, "a collection of addresses and networks", values)
    return tuple(_network_of(name, check_str(name, value)) for value in values)


def lies_in(address: _Address, networks: _Networks) -> bool:
    """Tell whether one of the networks holds the address."""
    return any(address in network for network in networks)


def client_address(request: Request, trusted: _Networks) -> _Address | None:
    """Return the peer's address, or where trusted proxies stand before it, the first one that is not theirs."""
    address = _address_of(request.client.host) if request.client else None
    lines = request.headers.getlist("x-forwarded-for")
    entries = [entry for line in lines for entry in line.split(",") if entry.strip()]  # RFC 9110 5.6.1: skip empty ones
    while address is not None and entries and lies_in(address, trusted):
        address = _address_of(entries.pop())
    return address


def _network_of(name: str, value: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(value)
    except ValueError as error:
        msg = f"{name} must be IP addresses or CIDR networks, got {value!r}: {error}"
        raise ValueError(msg) from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    beyond_prefix = network.prefixlen - _MAPPED_PREFIX
    return network if mapped is None or beyond_prefix < 0 else ip_network((mapped, beyond_prefix))


def _address_of(text: str) -> _Address | None:
    """Read an address; some proxies add the port, `192.0.2.1:443` or `[2001:db8::1]:443`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A server that listens on both families reports an IPv4 peer as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address
