"""What people see whose pages are htmx or Turbo, and event streams that come back: in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fastapi_maintenance import MaintenanceState, Switch
from tests.browser.looking import axe_passes, visited
from tests.browser.npm import script_of
from tests.browser.test_page import OPEN, Service
from tests.documents import example
from tests.support import uvicorn_process

CLOSED = MaintenanceState(switch=Switch(on=True, message="Back at ten"))
PACKAGES = {
    "htmx2.js": ("htmx.org@2.0.11", "dist/htmx.js"),
    "htmx4.js": ("htmx.org@4.0.1", "dist/htmx.js"),
    "turbo.js": ("@hotwired/turbo@8.0.23", "dist/turbo.es2017-umd.js"),
}
STREAMS = """
from fastapi.responses import HTMLResponse

@app.get("/")
async def page():
    return HTMLResponse("<!DOCTYPE html><title>Ticks</title>" + {page!r})
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run the app with the frameworks."""
    folder = tmp_path_factory.mktemp("frameworks")
    for name, (package, member) in PACKAGES.items():
        folder.joinpath(name).write_text(script_of(package, member), "utf-8")
    switch = folder / "switch"
    env = {"SWITCH": str(switch), "SCRIPTS": str(folder)}
    with uvicorn_process("tests.browser.frameworks:app", env=env) as url:
        yield Service(url, switch)


def typed_into(page: Page, service: Service, action: str) -> None:
    """Type into the form of a page, close the service, and let the page ask for something."""
    page.get_by_label("Text").fill("typed")
    service.set(CLOSED)
    page.get_by_text(action, exact=True).click()


@pytest.mark.parametrize(
    ("framework", "action", "answer"),
    [
        *[(htmx, *row) for htmx in ("htmx2", "htmx4") for row in (("Send", "Sent"), ("Part", "A part"))],
        *[("turbo", "Send", "Sent"), ("turbo", "Part", "A part")],
    ],
)
def test_page_covers_the_app_which_keeps_what_was_typed(
    browser: Browser, service: Service, framework: str, action: str, answer: str
) -> None:
    service.set(OPEN)
    with visited(browser, f"{service.url}/{framework}/script/") as page:
        typed_into(page, service, action)
        heading = page.frame_locator("dialog iframe").get_by_role("heading", name="Down for maintenance")
        heading.wait_for()
        assert page.locator("dialog").bounding_box() == {"x": 0, "y": 0, **(page.viewport_size or {})}
        border = "heading => getComputedStyle(heading.parentElement).borderTopWidth"
        assert heading.evaluate(border) == "6px"  # it has its styles
        assert page.locator("#here").inner_text() == "Here"
        service.set(OPEN)
        page.locator("dialog").wait_for(state="detached")
        assert page.get_by_label("Text").input_value() == "typed"
        page.get_by_text(action, exact=True).click()
        expect(page.get_by_text(answer, exact=True)).to_be_visible()


@pytest.mark.parametrize("close", ["Escape", "Close"])
def test_page_that_covers_the_app_is_accessible_and_can_be_closed(
    browser: Browser, service: Service, close: str
) -> None:
    service.set(OPEN)
    with visited(browser, f"{service.url}/htmx4/script/") as page:
        for _ in range(2):
            typed_into(page, service, "Part")
            page.locator("dialog").wait_for()
            assert axe_passes(page) > 5
            if close == "Escape":
                page.keyboard.press(close)
            else:
                page.get_by_text(close, exact=True).click()
            page.locator("dialog").wait_for(state="detached")
            assert page.get_by_label("Text").input_value() == "typed"


def test_link_of_turbo_loads_the_page_which_comes_back_by_itself(browser: Browser, service: Service) -> None:
    service.set(OPEN)
    with visited(browser, f"{service.url}/turbo/script/") as page:
        service.set(CLOSED)
        with page.expect_response("**/part"):
            page.get_by_text("Link").hover()
        expect(page.get_by_label("Text")).to_be_visible()  # what is fetched ahead is not shown
        page.get_by_text("Link").click()
        page.get_by_role("heading", name="Down for maintenance").wait_for()
        service.set(OPEN)
        page.get_by_text("A part").wait_for()
        assert page.url == f"{service.url}/turbo/script/part?"  # as of each page that has come back


@pytest.mark.parametrize(
    ("path", "action"),
    [
        *[("htmx2/swapping", action) for action in ("Send", "Part", "Link")],
        *[("htmx4/bare", action) for action in ("Send", "Part", "Link")],
        *[("turbo/bare", action) for action in ("Send", "Part", "Link")],
        ("plain/bare", "Send"),
    ],
)
def test_page_is_never_shown_within_a_part_of_another(
    browser: Browser, service: Service, path: str, action: str
) -> None:
    service.set(OPEN)
    with visited(browser, f"{service.url}/{path}/") as page:
        typed_into(page, service, action)
        expect(page.locator("body")).to_have_text("Down for maintenance Back at ten", use_inner_text=False)


def test_htmx_2_alone_shows_nothing_and_a_form_without_scripts_keeps_its_text_for_who_goes_back(
    browser: Browser, service: Service
) -> None:
    for path in ("htmx2", "plain"):
        service.set(OPEN)
        with visited(browser, f"{service.url}/{path}/bare/") as page:
            with page.expect_response(lambda response: response.status == 503):
                typed_into(page, service, "Send")
            service.set(OPEN)
            if path == "plain":
                page.get_by_role("heading", name="Down for maintenance").wait_for()
                page.go_back()
            assert page.locator("#here").inner_text() == "Here"
            assert page.get_by_label("Text").input_value() == "typed"


def test_event_sources_come_back_by_themselves(browser: Browser, tmp_path: Path) -> None:
    """One is open when maintenance begins, and the app ends it; the other connects while maintenance is on."""
    recipe = example("Streams that do not end").replaced("retry: 3000", "retry: 10")
    served = recipe.replaced("as_event_stream()", "as_event_stream(retry=0.1)").text
    page_of_recipe = STREAMS.format(page=example("Event streams", "html").text)
    (tmp_path / "served.py").write_text(served + page_of_recipe, encoding="utf-8")
    with uvicorn_process("served:app", folder=tmp_path) as url, visited(browser, url) as page:
        service, status = Service(url, tmp_path / "maintenance.txt"), page.get_by_role("status")
        page.evaluate(
            "new Promise((done) => source.addEventListener('message', done, { once: true })).then(() => null)"
        )
        service.set(CLOSED)
        expect(status).to_have_text("Back at ten")
        page.evaluate("""() => {
          window.other = new EventSource("/ticks");
          return new Promise((done) => other.addEventListener("maintenance", () => done(null)));
        }""")
        service.set(OPEN)
        expect(status).to_have_text("")
        page.evaluate("new Promise((done) => other.addEventListener('message', () => done(null)))")
