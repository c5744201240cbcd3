"""The maintenance page in apps with htmx or Turbo, and event streams that reconnect."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.looking import CLOSED, OPEN, Service, axe_passes, visited
from tests.browser.npm import script_of

PACKAGES = {
    "htmx2.js": ("htmx.org@2.0.11", "dist/htmx.js"),
    "htmx4.js": ("htmx.org@4.0.1", "dist/htmx.js"),
    "turbo.js": ("@hotwired/turbo@8.0.23", "dist/turbo.es2017-umd.js"),
}
HTMX_AND_TURBO = ("htmx2", "htmx4", "turbo")


@pytest.fixture(scope="module")
def scripts(service: Service) -> None:
    """Add the scripts of the frameworks to the service."""
    for name, (package, member) in PACKAGES.items():
        service.folder.joinpath(name).write_text(script_of(package, member), "utf-8")


def request_closed(page: Page, service: Service, action: str) -> None:
    """Type into the form of a page, close the service, and let the page send a request."""
    page.get_by_label("Text").fill("typed")
    service.set(CLOSED)
    page.get_by_text(action, exact=True).click()


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("framework", HTMX_AND_TURBO)
@pytest.mark.parametrize(("action", "answer"), [("Send", "Sent"), ("Part", "A part")])
def test_page_covers_the_app_which_keeps_what_was_typed(
    browser: Browser, service: Service, framework: str, action: str, answer: str
) -> None:
    service.set(OPEN)
    with visited(browser, service.at("frameworks", f"/{framework}/script/")) as page:
        request_closed(page, service, action)
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


@pytest.mark.usefixtures("scripts")
def test_page_that_covers_the_app_is_accessible_and_can_be_closed(browser: Browser, service: Service) -> None:
    service.set(OPEN)
    with visited(browser, service.at("frameworks", "/htmx4/script/")) as page:
        for close in ("Escape", "Close", "Escape"):
            request_closed(page, service, "Part")
            page.locator("dialog").wait_for()
            assert axe_passes(page) > 5
            if close == "Escape":
                page.keyboard.press(close)
            else:
                page.get_by_text(close, exact=True).click()
            page.locator("dialog").wait_for(state="detached")
            assert page.get_by_label("Text").input_value() == "typed"


@pytest.mark.usefixtures("scripts")
def test_link_of_turbo_loads_the_page_which_reloads_by_itself(browser: Browser, service: Service) -> None:
    service.set(OPEN)
    url = service.at("frameworks", "/turbo/script/")
    with visited(browser, url) as page:
        service.set(CLOSED)
        with page.expect_response("**/part"):
            page.get_by_text("Link").hover()
        expect(page.get_by_label("Text")).to_be_visible()  # a prefetched page is not shown
        page.get_by_text("Link").click()
        page.get_by_role("heading", name="Down for maintenance").wait_for()
        service.set(OPEN)
        page.get_by_text("A part").wait_for()
        assert page.url == f"{url}part?"  # as of each page that has reloaded


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("path", ["htmx2/swapping", "htmx4/bare", "turbo/bare", "plain/bare"])
def test_page_is_never_shown_inside_another(browser: Browser, service: Service, path: str) -> None:
    for action in ("Send", "Part", "Link") if path != "plain/bare" else ("Send",):
        service.set(OPEN)
        with visited(browser, service.at("frameworks", f"/{path}/")) as page:
            request_closed(page, service, action)
            expect(page.locator("body")).to_have_text("Down for maintenance Back at ten", use_inner_text=False)


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("framework", ["htmx2", "plain"])
def test_form_without_the_script_keeps_its_text(browser: Browser, service: Service, framework: str) -> None:
    """Of htmx 2, which shows nothing, and of plain HTML after going back."""
    service.set(OPEN)
    with visited(browser, service.at("frameworks", f"/{framework}/bare/")) as page:
        with page.expect_response(lambda response: response.status == 503):
            request_closed(page, service, "Send")
        service.set(OPEN)
        if framework == "plain":
            page.get_by_role("heading", name="Down for maintenance").wait_for()
            page.go_back()
        assert page.locator("#here").inner_text() == "Here"
        assert page.get_by_label("Text").input_value() == "typed"


def test_event_source_reconnects_by_itself(browser: Browser, service: Service) -> None:
    """The app ends one stream when maintenance begins; the other connects during maintenance."""
    service.set(OPEN)
    with visited(browser, service.at("streams", "/shop")) as page:
        status = page.get_by_role("status")
        page.evaluate("new Promise((done) => source.addEventListener('message', () => done(null), { once: true }))")
        service.set(CLOSED)
        expect(status).to_have_text("Back at ten")
        page.evaluate("""() => {
          window.other = new EventSource("/ticks");
          return new Promise((done) => other.addEventListener("maintenance", () => done(null)));
        }""")
        service.set(OPEN)
        expect(status).to_have_text("")
        page.evaluate("new Promise((done) => other.addEventListener('message', () => done(null)))")
