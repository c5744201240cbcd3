"""What a page sees of a WebSocket that maintenance refuses, and the recipes that give it more: in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from fastapi_maintenance import MaintenanceState, Switch
from fastapi_maintenance.codec import state_to_text
from tests.browser.looking import visited
from tests.documents import example
from tests.support import uvicorn_process

CLOSE = """([path, protocols]) => new Promise((resolve) => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + path, protocols);
  socket.onopen = () => { document.title = "Open"; };
  socket.onclose = ({code, reason, wasClean}) => resolve([code, reason, wasClean]);
})"""
APP = '''
from fastapi import HTTPException, WebSocket
from fastapi.responses import HTMLResponse
from fastapi_maintenance.router import maintenance_notice
from starlette.applications import Starlette
from starlette.routing import Mount

PAGE = """<!DOCTYPE html><html lang="en"><title>Shop</title><link rel="icon" href="data:,">
{script}</html>"""

async def shop():
    return HTMLResponse(PAGE)

async def updates(websocket: WebSocket):
    if websocket.query_params:
        raise HTTPException(401)
    await websocket.accept(websocket.headers.get("Sec-WebSocket-Protocol"))
    await websocket.receive_text()

with_reason, plain = app, FastAPI()
plain.add_middleware(maintenance)
for each in (with_reason, plain):
    each.include_router(maintenance_notice())
    each.add_api_route("/shop", shop)
    each.add_api_websocket_route("/ws", updates)
app = Starlette(routes=[Mount("/reason", with_reason), Mount("", plain)])
'''


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("websockets") / "maintenance.txt"


@pytest.fixture(scope="module")
def url(switch: Path) -> Iterator[str]:
    """Run the app of the recipe, and one without it that has the page."""
    script = example("A page that asks for the reason", "html").replaced("30_000", "100").replaced("* 5_000", "* 10")
    recipe = example("A reason in the close event").replaced("maintenance_middleware())", "maintenance)")
    setting = 'maintenance = maintenance_middleware(backend="file:maintenance.txt", retry_after=120)'
    recipe = recipe.replaced("app = FastAPI()", f"{setting}\napp = FastAPI()")
    switch.with_name("served.py").write_text(recipe.text + APP.replace("{script}", script.text), encoding="utf-8")
    with uvicorn_process("served:app", folder=switch.parent) as url:
        yield url


def turn(switch: Path, on: bool, *, ends_at: datetime | None = None) -> None:
    text = state_to_text(MaintenanceState(switch=Switch(on=on, ends_at=ends_at)))
    switch.with_suffix(".new").write_text(text, encoding="utf-8")
    switch.with_suffix(".new").replace(switch)


@pytest.mark.parametrize(
    ("path", "protocols", "seen"),
    [
        ("/ws", [], [1006, "", False]),
        ("/reason/ws", [], [1013, "maintenance, retry after 120 s", True]),
        ("/reason/ws", ["chat", "chat2"], [1013, "maintenance, retry after 120 s", True]),
    ],
)
def test_page_whose_handshake_is_refused_sees_no_reason_without_the_recipe(
    browser: Browser, url: str, switch: Path, path: str, protocols: list[str], seen: list[object]
) -> None:
    turn(switch, on=True)
    with visited(browser, f"{url}/maintenance/notice") as page:
        assert page.evaluate(CLOSE, [path, protocols]) == seen


def test_handshake_that_the_app_refuses_is_refused_as_without_the_recipe(
    browser: Browser, url: str, switch: Path
) -> None:
    turn(switch, on=False)
    with visited(browser, f"{url}/shop") as page:
        assert page.evaluate(CLOSE, ["/reason/ws?token=a", []]) == [1006, "", False]


@pytest.mark.parametrize("path", ["/ws", "/reason/ws"])
def test_page_whose_websocket_is_open_when_maintenance_begins_sees_1012(
    browser: Browser, url: str, switch: Path, path: str
) -> None:
    turn(switch, on=False)
    with visited(browser, f"{url}/shop") as page:
        page.evaluate(f"(path) => {{ window.end = ({CLOSE})([path, ['chat']]); }}", path)
        page.wait_for_function("document.title === 'Open'")
        turn(switch, on=True)
        assert page.evaluate("end") == [1012, "maintenance", True]


@pytest.mark.parametrize("ends", [None, timedelta(seconds=2)])
def test_page_says_that_it_is_maintenance_and_connects_again_by_itself(
    browser: Browser, url: str, switch: Path, ends: timedelta | None
) -> None:
    turn(switch, on=False)
    with visited(browser, f"{url}/shop") as page:
        page.get_by_text("Connected").wait_for()
        turn(switch, on=True, ends_at=None if ends is None else datetime.now(UTC) + ends)
        page.get_by_text("Down for maintenance").wait_for()
        if ends is None:
            turn(switch, on=False)
        page.get_by_text("Connected").wait_for()
