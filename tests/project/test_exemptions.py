"""The recipes that exempt by user or by GraphQL operation run as written, with the real packages."""

import json
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from tests.documents import DOCS, example
from tests.support import client, handshake, websocket_scope

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_maintenance")]
PASSWORDS = {"ada": "correct horse", "bob": "battery staple"}


@pytest.fixture
def anyio_backend() -> str:
    """Use asyncio, which these packages need."""
    return "asyncio"


@dataclass
class User:
    """A user, as FastAPI Users expects it."""

    email: str
    hashed_password: str
    is_superuser: bool = False
    is_active: bool = True
    is_verified: bool = True
    id: uuid.UUID = field(default_factory=uuid.uuid4)


class Users(list[User]):
    """A database, as FastAPI Users expects it."""

    async def get(self, id: uuid.UUID) -> User | None:  # noqa: A002 -- the name of FastAPI Users
        return next((user for user in self if user.id == id), None)

    async def get_by_email(self, email: str) -> User | None:
        return next((user for user in self if user.email == email), None)

    async def session(self) -> AsyncIterator[Self]:
        yield self


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Users:
    """Provide the secrets and the database that the recipes import."""
    monkeypatch.setenv("TOKEN_SECRET", "correct horse battery staple, and some more")
    monkeypatch.setenv("SESSION_SECRET", "correct horse battery staple")
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORDS["ada"])
    users, module = Users(), ModuleType("db")
    vars(module).update(User=User, get_user_db=users.session)
    monkeypatch.setitem(sys.modules, "db", module)
    return users


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide the module of the functions in an example, which some packages look up."""
    monkeypatch.setitem(sys.modules, "example", ModuleType("example"))


def app_of(heading: str, users: Users) -> FastAPI:
    """Return the app of a recipe, with an administrator and a customer in its database."""
    names: dict[str, Any] = {}
    app = example(heading).app(names)
    if "UserManager" in names:
        hashed = {name: names["UserManager"](users).password_helper.hash(word) for name, word in PASSWORDS.items()}
        users += [User("ada", hashed["ada"], is_superuser=True), User("bob", hashed["bob"])]
    return app


def with_token(path: str) -> Callable[..., Awaitable[int]]:
    async def log_in(http: httpx.AsyncClient, name: str, password: str) -> int:
        answer = await http.post(path, data={"username": name, "password": password})
        http.headers["Authorization"] = f"Bearer {answer.json().get('access_token')}"
        return answer.status_code

    return log_in


async def with_session(http: httpx.AsyncClient, name: str, password: str) -> int:
    return (await http.post("/login", data={"name": name, "password": password})).status_code


async def with_password(http: httpx.AsyncClient, name: str, password: str) -> int:
    http.auth = httpx.BasicAuth(name, password)
    return (await http.get("/login")).status_code


LOGINS: dict[str, tuple[Callable[..., Awaitable[int]], dict[str, int], int]] = {
    "An OAuth2 bearer token": (with_token("/token"), {"ada": 200, "bob": 200}, 401),
    "A session": (with_session, {"ada": 200, "bob": 200}, 401),
    "FastAPI Users": (with_token("/auth/jwt/login"), {"ada": 200, "bob": 200}, 400),
    "HTTP Basic": (with_password, {"ada": 303, "bob": 401}, 401),
}
"""How to log in, the status for each name with its password, and the status with a wrong password."""


@pytest.mark.parametrize("heading", LOGINS)
async def test_recipe_exempts_only_the_administrator(heading: str, users: Users) -> None:
    app = app_of(heading, users)
    log_in, answers, refused = LOGINS[heading]
    async with client(app) as http:
        assert [(await http.get(path)).status_code for path in ("/items", "/health")] == [503, 200]
    for name, answer in answers.items():
        async with client(app) as http:
            assert await log_in(http, name, "wrong") == refused
            assert (await http.get("/items")).status_code == 503
            assert await log_in(http, name, PASSWORDS[name]) == answer
            assert (await http.get("/items")).status_code == (200 if name == "ada" else 503)
    forged = {"Authorization": "Bearer forged", "Cookie": "session=forged"}
    async with client(app) as http:
        assert (await http.get("/items", headers=forged)).status_code == 503


async def test_superuser_who_becomes_inactive_is_blocked_at_once(users: Users) -> None:
    async with client(app_of("FastAPI Users", users)) as http:
        assert await with_token("/auth/jwt/login")(http, "ada", PASSWORDS["ada"]) == 200
        statuses = [(await http.get("/items")).status_code]
        users[0].is_active = False
        assert [*statuses, (await http.get("/items")).status_code] == [200, 503]


async def test_login_with_http_basic_asks_for_a_password(users: Users) -> None:
    async with client(app_of("HTTP Basic", users)) as http:
        answer = await http.get("/login")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Basic")


@pytest.mark.usefixtures("users")
async def test_session_middleware_inside_is_logged_once_in_the_words_of_the_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    block = example("A session")
    (line,) = [line for line in block.text.splitlines(keepends=True) if line.startswith("app.add_middleware(Session")]
    inside = block.replaced(line, "").replaced("app = FastAPI()\n", f"app = FastAPI()\n{line}")
    app = inside.app()
    async with client(app) as http:
        assert await with_session(http, "ada", PASSWORDS["ada"]) == 200
        with caplog.at_level(logging.ERROR):
            assert [(await http.get("/items")).status_code for _ in range(2)] == [503, 503]
    (record,) = caplog.records
    page = (DOCS / "how-to" / "order.md").read_text("utf-8").replace("\n", " ")
    (said,) = [each for each in page.split('"') if each.startswith("SessionMiddleware is missing")]
    assert said in record.getMessage()


ONE, TWO = "query One { books }", 'mutation Two { addBook(title: "Emma") }'
BOTH = f"{ONE} {TWO}"
PERSISTED = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}}
JSON = "application/json"


def posted(value: object, kind: str = JSON) -> dict[str, Any]:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {"content": content, "headers": {"Content-Type": kind}}


def got(**params: str) -> dict[str, Any]:
    return {"method": "GET", "params": params}


QUERIES: dict[str, dict[str, Any]] = {
    "a query": posted({"query": "{ books }"}),
    "all fields": posted({"query": ONE, "operationName": "One", "variables": None, "extensions": {"client": "a"}}),
    "no name": posted({"query": ONE, "operationName": None}),
    "a query by its name": posted({"query": BOTH, "operationName": "One"}),
    "a batch": posted([{"query": ONE}, {"query": "{ books }"}]),
    "GET": got(query="{ books }"),
    "GET by its name": got(query=BOTH, operationName="One"),
}
OTHERS: dict[str, dict[str, Any]] = {
    "a mutation": posted({"query": TWO}),
    "a subscription": posted({"query": "subscription { books }"}),
    "a mutation by its name": posted({"query": BOTH, "operationName": "Two"}),
    "several and no name": posted({"query": BOTH}),
    "several and a name that is null": posted({"query": BOTH, "operationName": None}),
    "several and an empty name": posted({"query": BOTH, "operationName": ""}),
    "several and a list of names": posted({"query": BOTH, "operationName": ["One"]}),
    "one name for two": posted({"query": BOTH.replace("One", "Two"), "operationName": "Two"}),
    "a batch with a mutation": posted([{"query": ONE}, {"query": TWO}]),
    "a batch that is too long": posted([{"query": ONE}] * 11),
    "a batch of texts": posted([ONE]),
    "a fragment": posted({"query": "fragment All on Query { books }"}),
    "an error of syntax": posted({"query": "{ books"}),
    "too deep": posted({"query": "{a" * 2_000}),
    "too many tokens": posted({"query": "{" + " books" * 6_000 + "}"}),
    "more than 1 MiB": posted({"query": ONE, "variables": {"padding": "." * 2**20}}),
    "persisted": posted(PERSISTED),
    "persisted and a query": posted({"query": ONE} | PERSISTED),
    "persisted as a document": posted({"query": ONE, "documentId": "sha256:0"}),
    "another type": posted({"query": ONE}, "text/plain"),
    "not JSON": posted(b"{"),
    "not UTF-8": posted(b'{"query": "\xff"}'),
    "JSON that is too deep": posted(b"[" * 100_000),
    "an upload": {"files": {"operations": (None, json.dumps({"query": ONE})), "map": (None, "{}")}},
    "no body": {},
    "GraphiQL": got(),
    "GET of a mutation": got(query=TWO),
    "GET of what is persisted": got(query=ONE, extensions='{"persistedQuery": {}}'),
}


@pytest.mark.parametrize("kind", [*QUERIES, *OTHERS])
async def test_graphql_request_passes_if_it_can_only_run_queries(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names: dict[str, Any] = {}
    app = example("GraphQL read-only").app(names)
    request = {**QUERIES, **OTHERS}[kind]
    async with client(app) as http:
        answer = await http.request(url="/graphql", **{"method": "POST", **request})
        assert (answer.status_code, names["BOOKS"]) == (200 if kind in QUERIES else 503, ["Persuasion"])
        assert caplog.messages == []
        if kind in QUERIES:
            results = answer.json() if isinstance(answer.json(), list) else [answer.json()]
            assert [each for each in results if each != {"data": {"books": ["Persuasion"]}}] == []
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "0")
        await http.post("/graphql", **posted({"query": TWO}))
    assert names["BOOKS"] == ["Persuasion", "Emma"]


async def test_graphql_query_in_parts_reaches_the_app_whole() -> None:
    query = "query ($text: String!) { books(containing: $text) }"
    body = json.dumps({"query": query, "variables": {"text": "Persuasion" * 90_000}}).encode()

    async def parts() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 100_000):
            yield body[begin : begin + 100_000]

    async with client(example("GraphQL read-only").app()) as http:
        answer = await http.post("/graphql", content=parts(), headers={"Content-Type": JSON})
    assert answer.json() == {"data": {"books": []}}


@pytest.mark.parametrize("query", [b"", b"query={books}"])
async def test_graphql_over_websocket_is_blocked(query: bytes) -> None:
    """Any operation may follow."""
    app = example("GraphQL read-only").app()
    headers = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "graphql-transport-ws"}
    scope = websocket_scope("/graphql", headers=headers)
    scope.update(query_string=query, subprotocols=["graphql-transport-ws"])
    assert [message["type"] for message in await handshake(app, scope)] == ["websocket.close"]
