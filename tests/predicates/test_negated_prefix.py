"""What `not_(path_prefix("/billing"))` opens, no route, file or service behind that is below `/billing` answers."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

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
from tests.strategies import raw_paths
from tests.support import make_request, websocket_scope

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
            ]
        ),
        max_size=7,
    ),
).map("/{}".format)
"""Paths that are often nearly, or in some way of reading, below `/billing`."""


class Recorder:
    """An app of one kind behind a maintenance middleware; it keeps what below `/billing` has answered."""

    def __init__(self, kind: str, exempt: ExemptCallback, folder: Path) -> None:
        self.readers: Sequence[Callable[[str], str]] = ()
        self.reached: list[str] = []
        app = FastAPI(openapi_url=None)
        getattr(self, f"_add_{kind}")(app, folder)
        self.app = maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt)(app)

    def _add_routes(self, app: FastAPI, _folder: Path) -> None:
        billing = APIRouter(prefix=PREFIX, route_class=CaseInsensitive)
        for path in ("", "/{rest:path}"):
            billing.add_api_route(path, self._note, methods=["GET", "POST"])
        app.include_router(billing)
        app.add_api_route("/{rest:path}", lambda: "elsewhere", methods=["GET", "POST"])

        @app.websocket(PREFIX)
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            self._note()

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
                self._note()
            return PlainTextResponse("forwarded")

        app.router.add_route("/{rest:path}", forward, methods=["GET", "POST"])

    def _note(self, rest: str = "") -> None:
        self.reached.append(rest)

    def what_answered(self, scope: Scope) -> list[str]:
        """Have the app answer, and return what below `/billing` did."""
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
    """Read as Windows does: either slash, any case, and no dots or spaces at the end of a name but in `.` and `..`."""
    segments = path.replace("\\", "/").lower().split("/")
    return "/".join(segment if segment.strip() in {".", ".."} else segment.rstrip(". ") for segment in segments)


def as_url(path: str) -> str:
    """Read as an endpoint does that puts the path into a URL and sends it on."""
    return re.split("[?#]", path)[0]


READERS = [as_url, merge_and_resolve, without_parameters, as_windows, unquote, lambda path: path.split("\n")[0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a file that is open, and one below `billing`."""
    root = tmp_path_factory.mktemp("files")
    (root / "billing" / "files").mkdir(parents=True)
    (root / "open").write_text("open")
    for name in ("billing/index.html", "billing/report.pdf", "billing/files/report.pdf"):
        (root / name).write_text("billing")
    return root


recorders: dict[tuple[str, str], Recorder] = {}


def recorder(kind: str, exemption: str, folder: Path) -> Recorder:
    """Return the app of this kind with this exemption, which is made once."""
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
def test_what_the_negation_of_a_prefix_opens_nothing_below_the_prefix_answers(
    kind: str, exemption: str, raw_path: str, kind_of_request: str, readers: list[Callable[[str], str]], folder: Path
) -> None:
    asked = recorder(kind, exemption, folder)
    asked.readers = readers
    path = unquote(raw_path)
    if kind_of_request == "websocket" and "files" not in kind:  # which take nothing but HTTP
        scope = websocket_scope(path)
    else:
        scope = make_request(path, method="POST" if kind_of_request == "POST" else "GET").scope
    below_public = kind == "mounted_files" and path.startswith("/public")  # the same file, by a path of its own
    assert not asked.what_answered(scope) or below_public


@pytest.mark.parametrize("kind", ["routes", "proxy"])
@pytest.mark.parametrize("path", ["/", "/items", "/items/7", "/billings", "/a/billing", "/items/a b.pdf", "/100%"])
def test_what_lies_elsewhere_is_open(kind: str, path: str, folder: Path) -> None:
    opened = []

    async def send(message: Message) -> None:
        opened.append(message.get("status"))

    async def receive() -> Message:
        return {"type": "http.request"}

    app: ASGIApp = recorder(kind, "prefix", folder).app
    anyio.run(app, make_request(path).scope, receive, send)
    assert 200 == opened[0], quote(path)


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
def test_a_file_that_is_closed_is_not_served_with_something_at_its_end(
    exempt: ExemptCallback, end: str, folder: Path
) -> None:
    app = Recorder("files", exempt, folder)
    for path in (FILE, FILE.upper(), f"/{FILE}"):
        assert app.what_answered(make_request(unquote(path + end)).scope) == []


def test_a_parameter_that_is_sent_twice_opens_nothing() -> None:
    other_tenants = not_(query_equals("tenant", "acme"))
    verdicts = [
        other_tenants(make_request(query=query)) for query in ("tenant=x", "", "tenant=acme", "tenant=x&tenant=acme")
    ]
    assert [True, True, False, None] == verdicts


def test_an_exact_path_is_closed_however_it_is_written() -> None:
    but_one = not_(path_is("/pay"))
    paths = (
        "/payments",
        "/pay/7",
        "/pay",
        "/Pay",
        "//pay",
        "/pay;a",
        "/pay\n",
        "/./pay",
        "/%70ay",
        "/x/../pay",
        "/pay.",
    )
    assert [True, True, False, *[None] * 8] == [but_one(make_request(path)) for path in paths]
