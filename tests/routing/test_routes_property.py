"""Whatever the tree of routers, mounts and paths: the endpoint that is judged is the one that the plain app reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from tests.support import client

METHODS = ("GET", "POST")
PATHS = ["/", "/a", "/a/", "/b", "/a/a", "/a/b", "/b/a", "/a/a/a", "/a/b/a/"]
MARKS = {True: force_maintenance_mode_on, False: force_maintenance_mode_off}


@dataclass(frozen=True)
class Leaf:
    """A route."""

    path: str
    method: str
    mark: bool | None


@dataclass(frozen=True)
class Branch:
    """Routes below a prefix, included or mounted."""

    prefix: str
    mounted: bool
    nodes: tuple[Leaf | Branch, ...]


leaves = st.builds(
    Leaf,
    st.sampled_from(["/a", "/b", "/{x}", "/a/", "/{x}/a"]),
    st.sampled_from(METHODS),
    st.sampled_from([None, *MARKS]),
)
trees = st.recursive(
    leaves,
    lambda nodes: st.builds(
        Branch, st.sampled_from(["/a", "/b", "/{y}"]), st.booleans(), st.lists(nodes, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=8,
)


def grow(
    router: FastAPI | APIRouter, nodes: tuple[Leaf | Branch, ...], reached: dict[str, bool | None], depth: int = 0
) -> None:
    """Add the nodes to a router; each endpoint answers with its own key of `reached`, where its mark is noted."""
    for node in nodes:
        prefix = "" if isinstance(node, Leaf) else node.prefix.replace("y", f"y{depth}")
        if isinstance(node, Leaf):
            key = f"endpoint {len(reached)}"
            reached[key] = node.mark
            router.add_api_route(node.path, endpoint_of(key, node.mark), methods=[node.method])
        elif node.mounted:
            inner = FastAPI(openapi_url=None)
            grow(inner, node.nodes, reached, depth + 1)
            router.mount(prefix, inner)
        else:
            included = APIRouter()
            grow(included, node.nodes, reached, depth + 1)
            router.include_router(included, prefix=prefix)


def endpoint_of(key: str, mark: bool | None) -> Callable[[], object]:
    """Return an endpoint that answers with its key."""

    async def endpoint() -> PlainTextResponse:
        return PlainTextResponse(key)

    return endpoint if mark is None else MARKS[mark](endpoint)


async def answers(app: FastAPI, maintenance: bool | None) -> list[tuple[int, str]]:
    """Return what the app answers to all requests; None: without the middleware."""
    closing = maintenance_middleware(backend=MemoryBackend(state=bool(maintenance)))
    async with client(app if maintenance is None else closing(app)) as http:
        responses = [await http.request(method, path) for path in PATHS for method in METHODS]
    return [(response.status_code, response.text if response.status_code == 200 else "") for response in responses]


@settings(max_examples=settings().max_examples // 2)
@given(nodes=st.lists(trees, min_size=1, max_size=4).map(tuple))
def test_a_request_is_judged_by_the_endpoint_that_the_plain_app_reaches(nodes: tuple[Leaf | Branch, ...]) -> None:
    reached: dict[str, bool | None] = {}
    app = FastAPI(openapi_url=None)
    grow(app, nodes, reached)

    def expected(plain: tuple[int, str], *, maintenance: bool) -> tuple[int, str]:
        if plain[0] != 200:
            return plain
        mark = reached[plain[1]]
        return (503, "") if (maintenance if mark is None else mark) else plain

    plain = anyio.run(answers, app, None)
    for maintenance in (True, False):
        assert [expected(answer, maintenance=maintenance) for answer in plain] == anyio.run(answers, app, maintenance)
