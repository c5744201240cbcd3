"""What a page sees of a WebSocket that maintenance refuses or closes, with and without the recipes."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser

from fastapi_maintenance import MaintenanceState, Switch
from tests.browser.looking import CLOSED, OPEN, Service, visited

CLOSE = """([path, protocols]) => new Promise((resolve) => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + path, protocols);
  socket.onopen = () => { document.title = "Open"; };
  socket.onclose = ({code, reason, wasClean}) => resolve([code, reason, wasClean]);
})"""
REASON = [1013, "maintenance, retry after 120 s", True]


@pytest.mark.parametrize(
    ("host", "state", "path", "protocols", "seen"),
    [
        ("websockets", CLOSED, "/ws", [], [1006, "", False]),
        ("reason", CLOSED, "/ws", [], REASON),
        ("reason", CLOSED, "/ws", ["chat", "chat2"], REASON),
        ("reason", OPEN, "/ws?token=a", [], [1006, "", False]),  # the app refuses it
    ],
)
def test_handshake_that_is_refused_has_a_reason_with_the_recipe(
    browser: Browser,
    service: Service,
    host: str,
    state: MaintenanceState,
    path: str,
    protocols: list[str],
    seen: object,
) -> None:
    service.set(state)
    with visited(browser, service.at(host, "/maintenance/notice")) as page:
        assert page.evaluate(CLOSE, [path, protocols]) == seen


@pytest.mark.parametrize("host", ["websockets", "reason"])
def test_websocket_that_is_open_when_maintenance_begins_is_closed_with_1012(
    browser: Browser, service: Service, host: str
) -> None:
    service.set(OPEN)
    with visited(browser, service.at(host, "/shop")) as page:
        page.evaluate(f"() => {{ window.end = ({CLOSE})(['/ws', ['chat']]); }}")
        page.wait_for_function("document.title === 'Open'")
        service.set(CLOSED)
        assert page.evaluate("end") == [1012, "maintenance", True]


@pytest.mark.parametrize("ends", [None, timedelta(seconds=2)])
def test_page_of_the_recipe_says_that_it_is_maintenance_and_reconnects(
    browser: Browser, service: Service, ends: timedelta | None
) -> None:
    service.set(OPEN)
    with visited(browser, service.at("websockets", "/shop")) as page:
        page.get_by_text("Connected").wait_for()
        ends_at = None if ends is None else datetime.now(UTC) + ends
        service.set(MaintenanceState(switch=Switch(on=True, ends_at=ends_at)))
        page.get_by_text("Down for maintenance").wait_for()
        if ends is None:
            service.set(OPEN)
        page.get_by_text("Connected").wait_for()
