"""`predicates/request_body.py`: predicates may read the body, and the app still receives the whole of it."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, UploadFile
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    DrainTimeoutError,
    MemoryBackend,
    all_of,
    any_of,
    header_equals,
    maintenance_middleware,
    maintenance_mode_on,
    method_in,
    never,
    not_,
)
from fastapi_maintenance.predicates import request_body as reading
from fastapi_maintenance.predicates.request_body import MOST_OF_BODY
from fastapi_maintenance.typing import ExemptCallback
from tests.middleware.test_open_websockets import Talk, service
from tests.support import OddError, client, eventually, handshake, make_request, uvicorn_process, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

DISCONNECT: Message = {"type": "http.disconnect"}


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Exchange:
    """A request whose messages come from a list, to an app behind a maintenance middleware.

    The app receives until the end of the body or a disconnect. A client that is not gone then waits for its answer.
    """

    def __init__(
        self,
        messages: list[Message],
        exempt: ExemptCallback,
        **settings: Any,  # noqa: ANN401 -- those of the middleware
    ) -> None:
        self.rest, self.sent, self.received = list(messages), list[Message](), list[Message]()
        self.received_before, self.is_cut_off = -1, False
        self._messages = messages
        self.app: ASGIApp = maintenance_middleware(
            self._answer, backend="memory:", enabled=True, exempt=exempt, **settings
        )

    @property
    def status(self) -> int:
        """The status of the response."""
        code: int = self.sent[0]["status"]
        return code

    async def run(self) -> Exchange:
        self.waits = anyio.Event()
        scope = {**make_request(method="POST").scope, "app": None}
        await self.app(scope, self._receive, self._send)
        return self

    async def _receive(self) -> Message:
        await checkpoint()
        if not self.rest:
            self.waits.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.is_cut_off = True
        return self.rest.pop(0)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.received_before = len(self._messages) - len(self.rest)
        while not self.received or self.received[-1].get("more_body"):
            self.received.append(await receive())
        await Response()(scope, receive, send)


async def read_body(request: Request) -> object:
    return await request.body()


async def read_one_chunk(request: Request) -> object:
    async for each in request.stream():
        return each
    return None


async def read_two_messages(request: Request) -> object:
    return [await request.receive() for _ in range(2)]


async def read_by_another_request(request: Request) -> object:
    return await Request(request.scope, request.receive).body()


async def read_form(request: Request) -> object:
    return await request.form()


async def ask_whether_disconnected(request: Request) -> object:
    return await request.is_disconnected()


async def read_and_be_cancelled(request: Request) -> object:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await request.body()
    return None


async def read_twice_at_once(request: Request) -> object:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(read_body, request)
    return None


WAYS = [
    *(read_body, read_by_another_request, read_one_chunk, read_two_messages, read_form, ask_whether_disconnected),
    *(read_and_be_cancelled, read_twice_at_once),
]
LIMIT = 8


def reads(way: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[bool]]:
    async def exempts_none(request: Request) -> bool:
        try:
            with anyio.move_on_after(0.001):
                await way(request)
        except (Exception, ExceptionGroup):  # noqa: BLE001 -- too large, or the client is gone
            return False
        return False

    return exempts_none


@given(
    st.lists(st.binary(max_size=LIMIT), min_size=1, max_size=5),
    st.booleans(),
    st.lists(st.sampled_from(WAYS), max_size=4),
)
@example([b"12345678"], False, [read_body])
@example([b"123456789"], False, [read_body, read_one_chunk])
@example([b"1234", b"5678", b"9"], False, [read_body, read_body])
@example([b"12", b"34"], True, [read_two_messages, read_body])
@example([b"12"], False, [read_by_another_request, read_by_another_request])
@example([b"12"], False, [ask_whether_disconnected])
def test_app_receives_the_whole_body_whatever_predicates_read(
    chunks: list[bytes], is_cut_off: bool, ways: list[Callable[[Request], Awaitable[object]]]
) -> None:
    messages = [chunk(each, more=number < len(chunks) or is_cut_off) for number, each in enumerate(chunks, 1)]
    messages += [DISCONNECT] if is_cut_off else []

    async def answered_last(_: Request) -> bool:
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MOST_OF_BODY", LIMIT)
        exchange = Exchange(messages, any_of(*map(reads, ways), answered_last))
        anyio.run(exchange.run)
    assert exchange.received == messages
    sizes = [len(each.get("body", b"")) for each in messages[: exchange.received_before]]
    assert sum(sizes[:-1]) <= LIMIT


@pytest.mark.parametrize(("size", "expected"), [(MOST_OF_BODY, 200), (MOST_OF_BODY + 1, 503)])
async def test_predicate_reads_at_most_one_mebibyte(size: int, expected: int) -> None:
    async def is_whole(request: Request) -> bool:
        return len(await request.body()) == size

    messages = [chunk(bytes(size - 100), more=True), chunk(bytes(100), more=False), DISCONNECT]
    exchange = await Exchange(messages, is_whole).run()
    assert (exchange.status, len(exchange.rest)) == (expected, 1)


async def read_stream(request: Request) -> object:
    assert b"".join([each async for each in request.stream()]) == b"12"
    return None


@pytest.mark.parametrize("way", [read_stream, read_twice_at_once])
async def test_predicate_reads_a_stream_or_twice_at_once_and_the_app_receives_the_body(
    way: Callable[[Request], Awaitable[object]],
) -> None:
    async def has_read(request: Request) -> bool:
        return await way(request) is None

    exchange = await Exchange([chunk(b"12", more=False), DISCONNECT], has_read).run()
    assert (exchange.status, exchange.received) == (200, [chunk(b"12", more=False)])


async def test_predicate_reads_at_most_so_many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_MESSAGES", 3)
    messages = [*[chunk(b"", more=True)] * 8, chunk(b"1", more=False)]
    exchange = await Exchange(messages, any_of(unknown, is_sure)).run()
    assert (exchange.received_before, exchange.received) == (4, messages)


async def unknown(request: Request) -> bool:
    return b"!" in await request.body()


async def hides_its_error(request: Request) -> bool:
    try:
        return await unknown(request)
    except Exception:  # noqa: BLE001 -- as users write it
        return False


async def asks_another_after_its_error(request: Request) -> bool:
    return await hides_its_error(request) or not await not_(is_sure)(request)


def returns_an_awaitable(request: Request) -> Awaitable[bool]:
    return hides_its_error(request)


async def is_sure(_: Request) -> bool:
    return True


@pytest.mark.parametrize("part", [unknown, hides_its_error, asks_another_after_its_error, returns_an_awaitable])
@pytest.mark.parametrize(
    ("compose", "expected"),
    [
        (lambda part: part, 503),
        (not_, 503),
        (lambda part: not_(not_(part)), 503),
        (lambda part: not_(all_of(part, is_sure)), 503),
        (lambda part: any_of(part, is_sure), 200),
        (lambda part: any_of(part, part, method_in("POST")), 200),
        (lambda part: any_of(all_of(is_sure, not_(part)), is_sure), 200),
        (lambda part: all_of(part, is_sure), 503),
        (lambda part: any_of(part, never), 503),
    ],
)
@pytest.mark.parametrize(
    "messages",
    [[chunk(bytes(MOST_OF_BODY + 1), more=False)], [chunk(b"1", more=True), DISCONNECT]],
    ids=["large", "gone"],
)
async def test_part_of_a_predicate_that_cannot_read_the_whole_body_is_unknown_and_others_decide(
    messages: list[Message],
    compose: Callable[[ExemptCallback], ExemptCallback],
    expected: int,
    part: ExemptCallback,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = await Exchange(messages, compose(part)).run()
    assert exchange.status == expected
    assert errors(caplog) == []
    if expected == 200:
        assert exchange.received == messages


async def test_part_of_a_predicate_that_fails_after_an_unknown_one_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(_: Request) -> bool:
        raise LookupError

    messages = [chunk(bytes(MOST_OF_BODY + 1), more=False)]
    exchange = await Exchange(messages, any_of(unknown, fails, is_sure)).run()
    assert exchange.status == 503
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


async def test_predicate_that_reads_while_the_server_fails_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    class LimitError(Exception):
        """What a limit of bodies outside raises."""

    async def fail() -> Message:
        raise LimitError

    exchange = Exchange([], any_of(unknown, not_(hides_its_error)))
    exchange._receive = fail  # type: ignore[method-assign]
    await exchange.run()
    assert exchange.status == 503
    assert errors(caplog) == []


async def test_predicate_that_reads_while_the_server_raises_no_exception_raises_the_same_once() -> None:
    tries = 0

    async def fail() -> Message:
        nonlocal tries
        tries += 1
        raise OddError

    exchange = Exchange([], unknown)
    exchange._receive = fail  # type: ignore[method-assign]
    with anyio.fail_after(30), pytest.raises(OddError):
        await exchange.run()
    assert tries == 1


async def test_predicate_that_leaves_a_read_behind_takes_nothing_from_the_app() -> None:
    async def leaves_a_read_behind(request: Request) -> bool:
        group.start_soon(read_ahead, request)
        await checkpoint()
        return True

    async def read_ahead(request: Request) -> None:
        with pytest.raises(RuntimeError, match=r"^the body cannot be read now, since the app has the request$"):
            await request.body()
        refused.set()

    refused = anyio.Event()
    messages = [chunk(b"1", more=True), chunk(b"2", more=True), chunk(b"3", more=False)]
    async with anyio.create_task_group() as group:
        exchange = await Exchange(messages, leaves_a_read_behind).run()
    assert (exchange.received, refused.is_set()) == (messages, True)


async def test_response_callback_reads_the_body_that_a_predicate_has_read() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body(), status_code=503)

    exchange = await Exchange([chunk(b"1", more=True), chunk(b"2", more=False)], unknown, response=echo).run()
    assert exchange.sent[1]["body"] == b"12"


class Slow:
    """A middleware outside that loses what it has received if it is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_slowly() -> Message:
            message = await receive()
            await anyio.sleep(0.02)
            return message

        await self.app(scope, receive_slowly, send)


async def test_predicate_that_cancels_a_read_takes_nothing_from_the_app() -> None:
    async def is_impatient(request: Request) -> bool:
        with anyio.move_on_after(0.001):
            await request.body()
        return True

    messages = [chunk(b"1", more=True), chunk(b"2", more=False)]
    exchange = Exchange(messages, is_impatient)
    exchange.app = Slow(exchange.app)
    await exchange.run()
    assert exchange.received == messages


async def test_predicate_that_cancels_a_read_has_it_end_with_the_request() -> None:
    async def is_impatient(request: Request) -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(read_body, request)
            await exchange.waits.wait()
            group.cancel_scope.cancel()
        return False

    exchange = Exchange([chunk(b"1", more=True)], is_impatient)
    await exchange.run()
    assert exchange.status == 503
    await eventually(lambda: exchange.is_cut_off)


async def test_predicate_that_asks_another_one_receives_the_next_message_after_it() -> None:
    async def is_in_order(request: Request) -> bool:
        first = await request.receive()
        return await not_(unknown)(request) is True and [first, await request.receive()] == messages

    messages = [chunk(b"1", more=True), chunk(b"2", more=False)]
    exchange = await Exchange(messages, is_in_order).run()
    assert (exchange.status, exchange.received) == (200, messages)


async def test_each_part_of_a_predicate_reads_a_form_and_json_from_the_beginning() -> None:
    seen: list[object] = []

    async def reads_file(request: Request) -> bool:
        async with request.form() as form:
            seen.append(await form["file"].read())  # type: ignore[union-attr]  # as the client sends it
        return False

    async def changes_json(request: Request) -> bool:
        seen.append((await request.json()).pop("name"))
        return False

    app = FastAPI()
    is_json = header_equals("content-type", "application/json")
    exempt = any_of(*[all_of(is_json, changes_json)] * 2, *[all_of(not_(is_json), reads_file)] * 2)
    app.add_middleware(maintenance_middleware(enabled=True, exempt=exempt))
    app.post("/")(lambda: None)
    async with client(app) as http:
        await http.post("/", files={"file": BytesIO(b"12345")})
        await http.post("/", json={"name": "ada"})
    assert seen == [b"12345", b"12345", "ada", "ada"]


async def test_response_callback_whose_client_is_gone_is_not_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body(), status_code=503)

    exchange = await Exchange([chunk(b"1", more=True), DISCONNECT], never, response=echo).run()
    assert (exchange.status, errors(caplog)) == (503, [])


async def test_files_of_a_form_that_a_predicate_has_read_are_closed() -> None:
    files: list[UploadFile] = []

    async def has_file(request: Request) -> bool:
        form = await request.form()
        files.append(form["file"])  # type: ignore[arg-type]  # as the client sends it
        if "x-fail" in request.headers:
            raise LookupError
        return True

    app = FastAPI()
    app.add_middleware(maintenance_middleware(enabled=True, exempt=has_file))

    @app.post("/")
    async def size(file: UploadFile) -> int:
        return len(await file.read())

    async with client(app) as http:
        response = await http.post("/", files={"file": BytesIO(b"12345")})
        failed = await http.post("/", files={"file": BytesIO(b"12345")}, headers={"x-fail": "1"})
    assert (response.json(), failed.status_code) == (5, 503)
    assert [file.file.closed for file in files] == [True, True]


async def test_request_whose_body_is_not_read_is_not_left_to_the_garbage_collector() -> None:
    requests: list[ReferenceType[Request]] = []

    def keeps(request: Request) -> bool:
        requests.append(ref(request))
        return False

    gc.disable()
    try:
        await Exchange([chunk(b"1", more=False)], any_of(keeps, is_sure)).run()
        assert [request() for request in requests] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize(("is_exempt", "expected"), [(True, "websocket.accept"), (False, "websocket.close")])
async def test_handshake_has_an_empty_body(is_exempt: bool, expected: str) -> None:
    bodies: list[bytes] = []

    async def keeps_body(request: Request) -> bool:
        bodies.append(await request.body())
        return is_exempt

    app = service(MemoryBackend(), Talk(), enabled=True, exempt=keeps_body)
    sent = await handshake(app, websocket_scope())
    assert (bodies, sent[0]["type"]) == ([b""], expected)


# A request in progress


async def test_request_in_progress_whose_predicate_reads_the_body_is_waited_for() -> None:
    async def is_query(request: Request) -> bool:
        return not (await request.body()).startswith(b"mutation")

    switch, begun, go_on = MemoryBackend(), anyio.Event(), anyio.Event()
    app = service(switch, Talk(), exempt=is_query)

    @app.post("/graphql")
    async def graphql() -> None:
        begun.set()
        await go_on.wait()

    async with living(app), client(app) as http, anyio.create_task_group() as group:
        group.start_soon(lambda: http.post("/graphql", content=b"query"))
        await begun.wait()
        with pytest.raises(DrainTimeoutError) as raised:
            async with maintenance_mode_on(switch, drain=0.1):
                pytest.fail("what the request may do is not known")
        go_on.set()
    assert [worker.requests for worker in raised.value.workers] == [1]


# Real servers


UPLOADS = """
from fastapi import FastAPI, Request
from fastapi_maintenance import maintenance_middleware

async def exempt(request):
    if request.headers["x-read"] == "all":
        await request.body()
    if request.headers["x-read"] == "some":
        async for chunk in request.stream():
            break
    return "x-closed" not in request.headers

app = FastAPI()
app.add_middleware(maintenance_middleware(enabled=True, exempt=exempt))

@app.put("/")
async def put(request: Request):
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
    return total
"""


@pytest.mark.servers
def test_upload_to_a_real_server_arrives_whole_and_is_asked_for_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "uploads.py").write_text(UPLOADS)
    seen: list[tuple[str, bool, bool, str]] = []
    with uvicorn_process("uploads:app", folder=tmp_path) as base:
        for read, closed in product(["none", "some", "all"], [False, True]):
            with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=30) as connection:
                extra = "X-Closed: 1\r\n" if closed else ""
                head = f"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Read: {read}\r\n{extra}"
                connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: {MOST_OF_BODY}\r\n\r\n".encode())
                answer = connection.recv(65_536)
                is_asked_for = answer.startswith(b"HTTP/1.1 100 ")
                if is_asked_for:
                    is_read = not closed or read == "all"  # what is sent and not read would reset the connection
                    connection.sendall(bytes(MOST_OF_BODY if is_read else 100))
                    answer = b""
                while more := connection.recv(65_536):
                    answer += more
                status, _, body = answer.decode().partition("\r\n\r\n")
                seen.append((read, is_asked_for, closed, body if status.startswith("HTTP/1.1 200 ") else status[9:12]))
    assert seen == [
        (read, read != "none" or not closed, closed, "503" if closed else str(MOST_OF_BODY))
        for read, closed in product(["none", "some", "all"], [False, True])
    ]
