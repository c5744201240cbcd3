"""`predicates/paths.py`: no request passes by a path that a router, a folder or a service behind reads in another way.

Neither outside an exempt prefix, nor, where everything but a prefix is exempt, below that prefix.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Scope

from fastapi_maintenance import (
    ExemptCallback,
    MemoryBackend,
    all_of,
    maintenance_middleware,
    not_,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)
from tests.routing.test_routes_property import CaseInsensitive
from tests.strategies import METHODS, PREFIXES, plain_paths, raw_paths
from tests.support import client, make_request, websocket_scope

ROOT_PATH = "/api"
LAYOUTS = ("plain", "server", "app", "mount")
"""What puts the app at `/api`: nothing, the server, the app itself, or an app that it is mounted on."""


@dataclass(frozen=True)
class Service:
    """An app in maintenance with a route for everything, which records the paths that reach it."""

    app: ASGIApp
    seen: list[str] = field(default_factory=list)


@cache
def service(layout: str, prefix: str) -> Service:
    """Return a service whose only exemption is the prefix."""
    app = FastAPI(openapi_url=None)
    if layout == "app":
        app.root_path = ROOT_PATH  # as FastAPI(root_path=...) does, which newer releases warn of
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=path_prefix(prefix)))
    outer = FastAPI(openapi_url=None)
    outer.mount(ROOT_PATH, app)
    created = Service(outer if layout == "mount" else app)

    @app.api_route("/{path:path}", methods=list(METHODS))
    async def catch_all(path: str) -> None:
        created.seen.append(f"/{path}")

    return created


def ask(layout: str, prefix: str, raw_path: str, *, method: str = "GET") -> tuple[int, str | None]:
    """Return the status of the answer, and the path with which the route was reached, if it was.

    The path is decoded once, as servers do.
    """
    asked = service(layout, prefix)
    asked.seen.clear()
    statuses: list[int] = []
    path = unquote(raw_path) if layout == "plain" else ROOT_PATH + unquote(raw_path)
    scope = make_request(path, method=method, root_path=ROOT_PATH if layout == "server" else "").scope
    scope["raw_path"] = raw_path.encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def run() -> None:
        await asked.app(scope, receive, send)

    anyio.run(run)
    assert len(asked.seen) <= 1
    return statuses[0], asked.seen[0] if asked.seen else None


def lies_in(path: str, prefix: str) -> bool:
    """Return whether the segments of the path begin with those of the prefix."""
    segments = [segment for segment in prefix.split("/") if segment]
    return path.startswith("/") and segments == path.split("/")[1 : 1 + len(segments)]


def resolved(path: str) -> str:
    """Return the path as what is behind a route may read it.

    That is without parameters of segments (RFC 3986 3.3), with a backslash for a slash, and with `.` and `..` resolved.
    """
    segments = [segment.partition(";")[0] for segment in path.replace("\\", "/").split("/")]
    return posixpath.normpath("/" + "/".join(segments).lstrip("/"))


@given(st.sampled_from(LAYOUTS), st.sampled_from(PREFIXES), raw_paths, st.sampled_from(METHODS))
@example("plain", "/health", "/health/../billing", "GET")
@example("plain", "/health", "/health/%2e%2e/billing", "POST")
@example("plain", "/health", "/health%2f..%2fbilling", "POST")
@example("plain", "/health", "/health/..%2F..%2Fbilling", "DELETE")
@example("plain", "/health", "/health/..%5cbilling", "GET")
@example("plain", "/health", "/health\\..\\billing", "GET")
@example("plain", "/health", "/health/a\\..\\..\\billing", "GET")
@example("plain", "/health", "/health/..;/billing", "GET")
@example("plain", "/health", "/health/..%3ba=b/billing", "GET")
@example("plain", "/health", "/health//../billing", "GET")
@example("plain", "/health", "/health/live/..", "GET")
@example("plain", "/health/live", "/health/live/..", "GET")
@example("plain", "/health", "//health/../billing", "GET")
@example("plain", "/health", "/HEALTH", "GET")
@example("plain", "/health", "/health%0a", "GET")
@example("plain", "/health", "/health%00/billing", "GET")
@example("server", "/health", "/../api/health", "GET")
@example("server", "/health", "/api/health", "GET")
@example("app", "/health", "/api/health", "GET")
@example("mount", "/health", "/api/health", "GET")
@example("mount", "/health", "/../health", "GET")
def test_path_prefix_opens_only_paths_that_lie_in_the_prefix_also_when_they_are_resolved(
    layout: str, prefix: str, raw_path: str, method: str
) -> None:
    status, reached = ask(layout, prefix, raw_path, method=method)
    if reached is None:
        assert status != 200
    else:
        assert status == 200
        assert lies_in(reached, prefix)
        assert lies_in(resolved(reached), prefix)


@given(st.sampled_from(LAYOUTS), st.sampled_from(PREFIXES), plain_paths, st.sampled_from(METHODS))
def test_path_prefix_opens_a_plain_path_exactly_if_it_lies_in_the_prefix(
    layout: str, prefix: str, path: str, method: str
) -> None:
    covered = lies_in(path, prefix) and not (prefix.endswith("/") and path == prefix.rstrip("/"))
    assert ask(layout, prefix, path, method=method) == ((200, path) if covered else (503, None))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_path_prefix_opens_a_path_as_the_router_reads_it(layout: str) -> None:
    paths = ["/%68ealth", "/health/", "/health%2flive", "/health//live", "/health/./live", "/health/live;a=b"]
    for raw_path in [*paths, "/health/..live", "/health/%C3%A9"]:
        assert ask(layout, "/health", raw_path) == (200, unquote(raw_path))


async def reached_below_a_mount(path: str) -> list[str]:
    """Return the routes that a request reaches in an app that is mounted below a parameter."""
    reached: list[str] = []
    inner, outer = FastAPI(), FastAPI()
    inner.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=path_prefix("/health")))
    for each in ("/health/billing", "/billing"):
        inner.add_api_route(each, lambda each=each: reached.append(each))
    outer.mount("/{tenant}", inner)
    async with client(outer) as http:
        await http.get(path)
    return reached


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/one/health/billing", ["/health/billing"]), ("/one/billing", []), ("/.+h/health/billing", ["/health/billing"])],
)
def test_path_prefix_below_a_mount_with_a_parameter_is_read_as_the_router_reads_it(
    path: str, allowed: list[str]
) -> None:
    """Starlette before 0.39 reads the root path, which a client chooses here, as a regular expression."""
    reached = anyio.run(reached_below_a_mount, path)
    assert reached in ([], allowed)
    assert reached == allowed or ".+" in path


# Everything but a prefix


PREFIX = "/billing"
EXEMPTIONS = {
    "prefix": not_(path_prefix(PREFIX)),
    "pattern": not_(path_matches(r"/billing(/.*)?")),
    "lookahead": path_matches(r"(?!/billing(/|$)).*"),
    "not under a sign": all_of(safe_method, not_(path_prefix(PREFIX))),
}

billing_paths = st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            [
                *("/billing", "/billing", "/billing", "/BILLING", "billing", "/%62illing", "/%2562illing", "/"),
                *("/", "/files", "/report.pdf", "/open", "//", "/.", "/..", "..", ".", " ", ";a=b", "%0a", "\\", "%5c"),
                *("%3f", "%23", "%253f", "?a=b", "%00", "%2f", "%2e", "%252e", "/x", "%ef%bc%8f", "\uff42illing"),
                *("::$DATA"),
            ]
        ),
        max_size=7,
    ),
).map("/{}".format)
"""Paths that are often nearly, or by some readers, below `/billing`."""


class Recorder:
    """An app of one kind behind a maintenance middleware; it records what below `/billing` has answered."""

    def __init__(self, kind: str, exempt: ExemptCallback, folder: Path) -> None:
        self.readers: Sequence[Callable[[str], str]] = ()
        self.reached: list[str] = []
        app = FastAPI(openapi_url=None)
        getattr(self, f"_add_{kind}")(app, folder)
        self.app = maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt)(app)

    def _add_routes(self, app: FastAPI, _folder: Path) -> None:
        billing = APIRouter(prefix=PREFIX, route_class=CaseInsensitive)
        for path in ("", "/{rest:path}"):
            billing.add_api_route(path, self._record, methods=["GET", "POST"])
        app.include_router(billing)
        app.add_api_route("/{rest:path}", lambda: "elsewhere", methods=["GET", "POST"])

        @app.websocket(PREFIX)
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            self._record()

    def _add_files(self, app: FastAPI, folder: Path) -> None:
        app.mount("/", StaticFiles(directory=folder, html=True))

    def _add_mounted_files(self, app: FastAPI, folder: Path) -> None:
        app.mount(PREFIX, StaticFiles(directory=folder / "billing", html=True))
        app.mount("/public", StaticFiles(directory=folder, html=True))

    def _add_proxy(self, app: FastAPI, _folder: Path) -> None:
        async def forward(request: Any) -> PlainTextResponse:  # noqa: ANN401 -- a Starlette route's request
            path = request.scope["path"]
            for read in self.readers:
                path = read(path)
            if path == PREFIX or path.startswith(PREFIX + "/"):
                self._record()
            return PlainTextResponse("forwarded")

        app.router.add_route("/{rest:path}", forward, methods=["GET", "POST"])

    def _record(self, rest: str = "") -> None:
        self.reached.append(rest)

    def what_answered(self, scope: Scope) -> list[str]:
        """Send a request, and return what below `/billing` has answered."""
        self.reached.clear()
        incoming = [{"type": "websocket.connect"} if scope["type"] == "websocket" else {"type": "http.request"}]

        async def receive() -> Message:
            return incoming.pop() if incoming else {"type": f"{scope['type']}.disconnect"}

        async def send(message: Message) -> None:
            if message.get("body") == b"billing":
                self.reached.append("file")

        async def run() -> None:
            await self.app(scope, receive, send)

        anyio.run(run)
        return self.reached


def merge_and_resolve(path: str) -> str:
    """Read as nginx does."""
    return posixpath.normpath("/" + path.lstrip("/"))


def without_parameters(path: str) -> str:
    """Read as a Java server does."""
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


def as_windows(path: str) -> str:
    """Read as Windows does: either slash, any case, types of streams, no dots or spaces at the end."""
    segments = re.sub(r":[^/]*:\$\w+", "", path.replace("\\", "/").lower()).split("/")
    return "/".join(segment if segment.strip() in {".", ".."} else segment.rstrip(". ") for segment in segments)


def as_url(path: str) -> str:
    """Read as an endpoint does that puts the path into a URL and sends it on."""
    return re.split("[?#]", path)[0]


READERS = [as_url, merge_and_resolve, without_parameters, as_windows, unquote, lambda path: path.split("\n")[0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file that is open, and some below `billing`."""
    root = tmp_path_factory.mktemp("files")
    (root / "billing" / "files").mkdir(parents=True)
    (root / "open").write_text("open")
    for name in ("billing/index.html", "billing/report.pdf", "billing/files/report.pdf"):
        (root / name).write_text("billing")
    return root


recorders: dict[tuple[str, str], Recorder] = {}


def recorder(kind: str, exemption: str, folder: Path) -> Recorder:
    """Return the app of this kind with this exemption, which is created once."""
    return recorders.setdefault((kind, exemption), Recorder(kind, EXEMPTIONS[exemption], folder))


@pytest.mark.parametrize("kind", ["routes", "files", "mounted_files", "proxy"])
@given(
    exemption=st.sampled_from(list(EXEMPTIONS)),
    raw_path=billing_paths | raw_paths,
    kind_of_request=st.sampled_from(["GET", "POST", "websocket"]),
    readers=st.permutations(READERS).flatmap(lambda order: st.integers(0, len(order)).map(lambda n: order[:n])),
)
@example(exemption="prefix", raw_path="/billing%0a", kind_of_request="POST", readers=[])
@example(exemption="not under a sign", raw_path="/billing%0a", kind_of_request="websocket", readers=[])
@example(exemption="prefix", raw_path="/billing%3Fx", kind_of_request="GET", readers=[as_url])
@example(exemption="prefix", raw_path="/billing%253Fx", kind_of_request="GET", readers=[unquote, as_url])
@example(exemption="lookahead", raw_path="/billing%23x", kind_of_request="GET", readers=[as_url])
@example(exemption="prefix", raw_path="/billing/..", kind_of_request="GET", readers=[])
@example(exemption="prefix", raw_path="/billing/files/x/../report.pdf", kind_of_request="GET", readers=[])
@example(exemption="prefix", raw_path="/public/../billing/report.pdf", kind_of_request="GET", readers=[])
@example(exemption="prefix", raw_path="//billing/report.pdf", kind_of_request="GET", readers=[])
@example(exemption="prefix", raw_path="//billing", kind_of_request="GET", readers=[merge_and_resolve])
@example(exemption="prefix", raw_path="/a/%252e%252e/billing", kind_of_request="GET", readers=READERS[::-1])
@example(exemption="prefix", raw_path="/billing;a=b/x", kind_of_request="GET", readers=[without_parameters])
@example(exemption="lookahead", raw_path="//billing", kind_of_request="GET", readers=[merge_and_resolve])
@example(exemption="lookahead", raw_path="/billing::$INDEX_ALLOCATION/x", kind_of_request="GET", readers=[as_windows])
def test_negated_prefix_opens_nothing_that_the_prefix_answers(
    kind: str, exemption: str, raw_path: str, kind_of_request: str, readers: list[Callable[[str], str]], folder: Path
) -> None:
    asked = recorder(kind, exemption, folder)
    asked.readers = readers
    path = unquote(raw_path)
    if kind_of_request == "websocket" and "files" not in kind:  # which accept nothing but HTTP
        scope = websocket_scope(path)
    else:
        scope = make_request(path, method="POST" if kind_of_request == "POST" else "GET").scope
    below_public = kind == "mounted_files" and path.startswith("/public")  # the same file, by a path of its own
    assert not asked.what_answered(scope) or below_public


@pytest.mark.parametrize("kind", ["routes", "proxy"])
@pytest.mark.parametrize("path", ["/", "/items", "/items/7", "/billings", "/a/billing", "/items/a b.pdf", "/100%"])
def test_negated_prefix_opens_what_lies_elsewhere(kind: str, path: str, folder: Path) -> None:
    statuses = []

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    async def receive() -> Message:
        return {"type": "http.request"}

    app: ASGIApp = recorder(kind, "prefix", folder).app
    anyio.run(app, make_request(path).scope, receive, send)
    assert statuses[0] == 200


FILE = "/billing/report.pdf"


@pytest.mark.parametrize(
    "exempt",
    [
        not_(path_is(FILE)),
        not_(path_is(f"{FILE}/")),
        not_(path_matches(r"/billing/.*\.pdf")),
        not_(path_matches(r"^/billing/report\.pdf$")),
        path_matches(r"(?!/billing/report\.pdf$).*"),
    ],
)
@pytest.mark.parametrize("end", ["", "/", "//", "%2f", "/.", "/%2e/", "?", "%3F", "%23x"])
def test_negated_path_of_a_file_opens_it_with_no_end(exempt: ExemptCallback, end: str, folder: Path) -> None:
    app = Recorder("files", exempt, folder)
    for path in (FILE, FILE.upper(), f"/{FILE}"):
        assert app.what_answered(make_request(unquote(path + end)).scope) == []


PAY = ("/Pay", "//pay", "/pay;a", "/pay\n", "/./pay", "/%70ay", "/x/../pay", "/pay.", "/pay::$DATA")


@pytest.mark.parametrize(
    ("exempt", "expected", "requests"),
    [
        (not_(path_is("/pay")), True, [make_request(path) for path in ("/payments", "/pay/7")]),
        (not_(path_is("/pay")), False, [make_request("/pay")]),
        (not_(path_is("/pay")), None, [make_request(path) for path in PAY]),
        (not_(query_equals("tenant", "acme")), True, [make_request(query="tenant=x"), make_request()]),
        (not_(query_equals("tenant", "acme")), False, [make_request(query="tenant=acme")]),
        (not_(query_equals("tenant", "acme")), None, [make_request(query="tenant=x&tenant=acme")]),
    ],
)
def test_negated_predicate_of_an_ambiguous_request_is_unknown(
    exempt: Callable[[Any], Any], expected: bool | None, requests: list[Any]
) -> None:
    assert [exempt(request) for request in requests] == [expected] * len(requests)
