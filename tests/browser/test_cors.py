"""The 503 as a page of another origin reads it: in a real browser, from a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from fastapi_maintenance import MaintenanceState, Switch
from fastapi_maintenance.codec import state_to_text
from tests.browser.looking import visited
from tests.browser.npm import script_of
from tests.documents import example
from tests.support import uvicorn_process

READ = """async ([url, options]) => {
  try {
    const response = await fetch(url, options);
    const header = (name) => response.headers.get(name);
    const {detail} = await response.json();
    return [response.status, detail, header("Retry-After"), header("X-Maintenance-Mode")];
  } catch (error) {
    return [error.name];
  }
}"""
"""What a script can read of an answer."""
PUT = {"method": "PUT", "headers": {"Content-Type": "application/json", "X-Token": "a"}, "body": '{"a": 1}'}
REQUESTS: dict[str, dict[str, Any]] = {
    "simple": {},
    "preflighted": PUT,
    "with credentials": {"credentials": "include"},
    "preflighted with credentials": {**PUT, "credentials": "include"},
}
CLOSED = [503, "New database", "120", "on"]
UNREADABLE = ["TypeError"]  # all that the page is given
CLOSED_STATE = MaintenanceState(switch=Switch(on=True, message="New database"))


class Shop(BaseHTTPRequestHandler):
    """The page of a single-page app."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Set-Cookie", "session=a")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><html lang=en><title>Shop</title><link rel=icon href=data:,>")

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Serve the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cors") / "switch"


@pytest.fixture(scope="module")
def api(origin: str, switch: Path) -> Iterator[str]:
    """Run the apps."""
    with uvicorn_process("tests.browser.served_cors:app", env={"ORIGIN": origin, "SWITCH": str(switch)}) as url:
        yield url


@pytest.fixture(scope="module")
def page(browser: Browser, origin: str) -> Iterator[Page]:
    """Open the page."""
    with visited(browser, origin) as page:
        yield page


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/inside/items", CLOSED),
        ("/problem/items", CLOSED),
        ("/blocking/items", CLOSED),
        ("/blocking/nothing", CLOSED),
        ("/function/items", CLOSED),
        ("/mounted/shop/items", CLOSED),
        ("/outside/items", CLOSED),
        ("/outside-listed/items", CLOSED),
        ("/outside-unlisted/items", [503, "New database", None, None]),
        ("/credentials/items", CLOSED),
        ("/outside-credentials/items", CLOSED),
    ],
)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_page_of_another_origin_reads_the_blocked_response(
    page: Page, api: str, switch: Path, path: str, request_: dict[str, Any], seen: list[object]
) -> None:
    """As the answer before it, where the app allows the request."""
    answers = []
    for state in (MaintenanceState(), CLOSED_STATE):
        switch.write_text(state_to_text(state), encoding="utf-8")
        answers.append(page.evaluate(READ, [api + path, request_]))
    open_ = [404, "Not Found", None, None] if "nothing" in path else [200, request_.get("body", ""), None, None]
    is_allowed = "credentials" not in request_ or "credentials" in path
    assert answers == ([open_, seen] if is_allowed else [UNREADABLE] * 2)


def test_axios_of_another_origin_waits_as_retry_after_says_within_its_bound(
    browser: Browser, origin: str, api: str, switch: Path
) -> None:
    put = """async (url) => {
      try {
        const {status, data} = await axios.put(url, {a: 1}, {headers: {"X-Token": "a"}});
        return [status, data.detail];
      } catch (error) {
        return [error.response.status, error.response.data.detail];
      }
    }"""
    with visited(browser, origin) as page:
        page.add_script_tag(content=script_of("axios@1", "dist/axios.min.js"))
        page.add_script_tag(content=example("axios", "js").text)
        asked: list[bool] = []
        page.on("request", lambda request: asked.append(request.method == "PUT"))
        found = []
        for seconds in (1.5, 15, 60):
            asked.clear()
            ends_at = datetime.now(UTC) + timedelta(seconds=seconds)
            state = MaintenanceState(switch=Switch(on=True, message="New database", ends_at=ends_at))
            switch.write_text(state_to_text(state), encoding="utf-8")
            found.append([*page.evaluate(put, f"{api}/inside/items"), sum(asked)])
            page.evaluate(
                "() => { window.setTimeout = (then) => Promise.resolve().then(then); }"
            )  # from now on at once
    assert found == [[200, '{"a":1}', 2], [503, "New database", 3], [503, "New database", 1]]
