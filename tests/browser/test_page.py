"""The maintenance page as a visitor sees it: in a real browser, from a real server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from fastapi_maintenance import Hold, MaintenanceState, Switch
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.responses.words import LANGUAGES
from tests.browser.looking import DESKTOP, PHONE, axe_passes, visited
from tests.support import uvicorn_process

OPEN, CLOSED = MaintenanceState(), MaintenanceState(switch=Switch(on=True))
HOSTILE = (
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> & \"quoted\" 'single' "
    "</p></main></body> $title ${message} " + "wide" * 60
)


class Service:
    """A server that can be closed."""

    def __init__(self, url: str, switch: Path) -> None:
        self.url = url
        self._switch = switch

    def set(self, state: MaintenanceState) -> None:
        """Close it, or open it."""
        self._switch.with_suffix(".new").write_text(state_to_text(state))
        self._switch.with_suffix(".new").replace(self._switch)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a server."""
    switch = tmp_path_factory.mktemp("switch") / "switch"
    with uvicorn_process("tests.browser.served:app", env={"SWITCH": str(switch)}) as url:
        yield Service(url, switch)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for pictures."""
    return Path(os.environ.get("PICTURES") or tmp_path_factory.mktemp("pictures"))


def announced(**in_future: float) -> MaintenanceState:
    """Return a maintenance with a message and an end."""
    end = datetime.now(UTC) + timedelta(**in_future)
    return MaintenanceState(
        switch=Switch(on=True, message="We are moving to a new database.\nNothing is lost.", ends_at=end)
    )


def background(page: Page) -> str:
    """Return the colour behind the text."""
    color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return color


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    "state", [CLOSED, announced(hours=2), MaintenanceState(switch=Switch(on=True, message=HOSTILE))]
)
def test_it_fits_its_window_in_light_and_in_dark(
    browser: Browser, service: Service, viewport: ViewportSize, state: MaintenanceState
) -> None:
    service.set(state)
    seen = set()
    for scheme in ("light", "dark"):
        with visited(browser, f"{service.url}/plain/", viewport=viewport, color_scheme=scheme) as page:
            seen.add(background(page))
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            box = page.locator("main").bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= viewport["width"]
    assert {"rgb(255, 255, 255)", "rgb(17, 24, 39)"} == seen


def test_a_hostile_message_is_text_and_nothing_else_is_asked_for(browser: Browser, service: Service) -> None:
    service.set(MaintenanceState(switch=Switch(on=True, message=HOSTILE)))
    context = browser.new_context()
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    response = page.goto(f"{service.url}/plain/")
    assert response is not None
    assert response.status == 503
    assert page.locator("main p").first.inner_text() == HOSTILE
    assert page.title() == "Down for maintenance"
    assert page.locator("img, script, iframe, link").count() == 0
    assert [f"{service.url}/plain/"] == [url for url in asked if not url.endswith("/favicon.ico")]
    # The status itself is told on the console; a breach of the policy would be too.
    assert [text for text in told if "503" not in text and "favicon" not in text] == []
    context.close()


def test_its_policy_lets_no_script_run(browser: Browser, service: Service) -> None:
    service.set(CLOSED)
    with visited(browser, f"{service.url}/plain/") as page:
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate(
                "() => { const script = document.createElement('script'); script.textContent = 'document.title = 1';"
                " document.body.append(script) }"
            )
        assert page.title() == "Down for maintenance"


@pytest.mark.parametrize(
    ("language", "scripts"), [*((language, True) for language in sorted(LANGUAGES)), ("de", False)]
)
def test_it_speaks_the_visitors_language_with_and_without_scripts(
    browser: Browser, service: Service, language: str, scripts: bool
) -> None:
    service.set(announced(minutes=30))
    with visited(browser, f"{service.url}/plain/", locale=language, java_script_enabled=scripts) as page:
        assert LANGUAGES[language].title == page.locator("h1").inner_text() == page.title()
        assert language == page.locator("html").get_attribute("lang")
        assert LANGUAGES[language].expected in page.locator("main").inner_text()
        assert "Nothing is lost." in page.locator("main").inner_text()


def test_what_is_replaced_is_shown(browser: Browser, service: Service) -> None:
    service.set(CLOSED)
    with visited(browser, f"{service.url}/own/") as page:
        assert page.locator("main").inner_text().strip() == "Umbau\n\nBis morgen"
        assert page.evaluate("getComputedStyle(document.querySelector('main')).borderTopColor") == "rgb(9, 8, 7)"
    with visited(browser, f"{service.url}/template/") as page:
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
        assert page.evaluate("document.querySelector('img').naturalWidth") == 20


@pytest.mark.parametrize(
    ("viewport", "scheme", "language"),
    [(PHONE, "light", "en"), (PHONE, "dark", "de"), (DESKTOP, "light", "fr"), (DESKTOP, "dark", "pt")],
)
def test_it_is_accessible(
    browser: Browser, service: Service, viewport: ViewportSize, scheme: str, language: str
) -> None:
    for state in (CLOSED, announced(hours=5)):
        service.set(state)
        settings = {"viewport": viewport, "color_scheme": scheme, "locale": language, "bypass_csp": True}
        with visited(browser, f"{service.url}/plain/", **settings) as page:
            assert axe_passes(page) > 10


def test_it_tries_again_by_itself_when_its_time_has_come(browser: Browser, service: Service) -> None:
    service.set(announced(seconds=8))
    with (
        visited(browser, f"{service.url}/quick/") as page,
        visited(browser, f"{service.url}/quick/", java_script_enabled=False) as without_scripts,
    ):
        for each in (page, without_scripts):
            assert each.title() == "Down for maintenance"
        for each in (page, without_scripts):
            each.get_by_text("The shop is open").wait_for(timeout=60_000)


def test_it_tries_again_where_no_end_was_known(browser: Browser, service: Service) -> None:
    service.set(MaintenanceState(holds=(Hold(id="deployment", on=True),)))
    with visited(browser, f"{service.url}/quick/") as page:
        assert page.title() == "Down for maintenance"
        service.set(OPEN)
        page.get_by_text("The shop is open").wait_for(timeout=60_000)


def test_it_tries_again_at_an_address_with_a_fragment_and_at_none_but_its_own(
    browser: Browser, service: Service
) -> None:
    paths = ("/quick/", "/quick/a%20b?x=%3C%27&y=é", "//evil.example/x", "//evil.example/x?//evil.example")
    service.set(CLOSED)
    with visited(browser, service.url) as first:
        pages = [first.context.new_page() for _ in paths]
        for page, path in zip(pages, paths, strict=True):
            page.goto(f"{service.url}{path}#prices")
            assert page.title() == "Down for maintenance"
        service.set(OPEN)
        for page, path in zip(pages, paths, strict=True):
            page.get_by_text("The shop is open").wait_for(timeout=60_000)
            assert f"{service.url}{path}".replace("é", "%C3%A9") == page.url.removesuffix("?")


@pytest.mark.parametrize(
    ("host", "path", "shown"),
    [
        ("127.0.0.1", "/plain/", True),
        ("localhost", "/plain/", False),
        ("127.0.0.1", "/framed/", False),
        ("localhost", "/framed/", True),
    ],
)
def test_it_is_shown_in_frames_of_the_origins_that_were_named(
    browser: Browser, service: Service, host: str, path: str, shown: bool
) -> None:
    service.set(CLOSED)
    outside = service.url.replace("127.0.0.1", host)
    with visited(browser, f"{outside}/outside?shows={service.url}{path}") as page:
        page.frames[1].wait_for_load_state()
        assert shown == (page.frames[1].locator("h1").all_inner_texts() == ["Down for maintenance"])


def test_it_speaks_a_language_of_ones_own_from_right_to_left_and_links_to_a_status_page(
    browser: Browser, service: Service
) -> None:
    service.set(announced(hours=5))
    with visited(browser, f"{service.url}/arabic/", locale="ar-EG", viewport=PHONE, bypass_csp=True) as page:
        assert axe_passes(page) > 10
    with visited(browser, f"{service.url}/arabic/", locale="ar-EG", viewport=PHONE) as page:
        assert page.evaluate("getComputedStyle(document.documentElement).direction") == "rtl"
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.route("https://status.example/**", lambda route: route.fulfill(body="All is well"))
        page.get_by_role("link", name="صفحة الحالة").click()
        page.wait_for_url("https://status.example/?a=1&lt=2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_picture_is_taken(browser: Browser, service: Service, scheme: str, pictures: Path) -> None:
    service.set(announced(minutes=30))
    picture = pictures / f"page-{scheme}.png"
    begin = time.time()
    with visited(browser, f"{service.url}/plain/", color_scheme=scheme) as page:
        page.screenshot(path=picture)
    assert picture.stat().st_mtime >= begin - 1
    assert picture.stat().st_size > 5000
