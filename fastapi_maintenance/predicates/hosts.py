"""The predicate on the host."""

from __future__ import annotations

import re

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_str
from fastapi_maintenance.predicates.verdicts import Verdict
from fastapi_maintenance.typing import Predicate

__all__ = ["host_is"]

_HOST = r"(?:\*\.)?[^\s/*:\[\]]+|\[[0-9a-f:.]+\]"
_HOST_AND_PORT = rf"({_HOST})(?<!\.)(?::[0-9]*)?"  # a dot at the end is left out by some


def host_is(*hosts: str) -> Predicate:
    """Exempt requests to these hosts: the `Host` header without its port, in any case.

    >>> host_is("*.example.com")(get("/", headers=[("host", "admin.example.com")]))
    True

    `*.example.com` stands for every host below `example.com`. Unknown is a host that is missing, malformed, or sent
    twice with different values.

    Raises:
        TypeError: A host is not a `str`.
        ValueError: A host is empty, or has a port, a scheme, a path or a `*` that is not its whole first label.

    """
    wanted = frozenset(_checked_host(host) for host in hosts)
    exact = frozenset(host for host in wanted if not host.startswith("*"))
    below = tuple(host[1:] for host in wanted - exact)

    def host_is_wanted(request: Request, /) -> Verdict:
        sent = [re.fullmatch(_HOST_AND_PORT, host.lower()) for host in request.headers.getlist("host")]
        names = {match and match[1] for match in sent}
        host = names.pop() if len(names) == 1 else None
        return None if host is None else host in exact or host.endswith(below)

    return host_is_wanted


def _checked_host(host: str) -> str:
    lowered = check_str("hosts", host).lower()
    if re.fullmatch(_HOST, lowered):
        return lowered
    msg = f"hosts must be names without scheme, port or path, at most with a leading '*.', got {host!r}"
    raise ValueError(msg)
