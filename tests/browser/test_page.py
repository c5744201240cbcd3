"""The maintenance page as a visitor sees it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize

from fastapi_maintenance import Hold, MaintenanceState, Switch
from fastapi_maintenance.responses.languages import LANGUAGES
from tests.browser.looking import CLOSED, DESKTOP, OPEN, PHONE, Service, axe_passes, fits, visited

TEXT = (
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> & \"quoted\" 'single' "
    "</p></main></body> $title ${message} " + "wide" * 60
)
HOSTILE = MaintenanceState(switch=Switch(on=True, message=TEXT))
BARE = MaintenanceState(switch=Switch(on=True))


def announced(**ahead: float) -> MaintenanceState:
    """Return a state with a message and an end."""
    ends_at = datetime.now(UTC) + timedelta(**ahead)
    message = "We are moving to a new database.\nNothing is lost."
    return MaintenanceState(switch=Switch(on=True, message=message, ends_at=ends_at))


@pytest.mark.parametrize(
    ("viewport", "scheme", "language"),
    [(PHONE, "light", "en"), (PHONE, "dark", "de"), (DESKTOP, "light", "fr"), (DESKTOP, "dark", "pt")],
)
def test_page_fits_its_window_and_is_accessible(
    browser: Browser, service: Service, viewport: ViewportSize, scheme: str, language: str
) -> None:
    settings = {"viewport": viewport, "color_scheme": scheme, "locale": language, "bypass_csp": True}
    with visited(browser, service.at("shop"), **settings) as page:
        for state in (BARE, announced(hours=5), HOSTILE):
            service.set(state)
            page.goto(service.at("page", "/plain/"))
            box = page.locator("main").bounding_box()
            assert box is not None
            assert 0 <= box["x"] <= box["x"] + box["width"] <= viewport["width"]
            assert fits(page)
            assert axe_passes(page) > 10
            color = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert color == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 24, 39)"}[scheme]


def test_page_shows_a_hostile_message_as_text_and_requests_nothing_else(browser: Browser, service: Service) -> None:
    service.set(HOSTILE)
    context = browser.new_context()
    page = context.new_page()
    logged: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("dialog", lambda dialog: logged.append(dialog.message))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    response = page.goto(url := service.at("page", "/plain/"))
    assert response is not None
    assert response.status == 503
    assert page.locator("main p").first.inner_text() == TEXT
    assert page.title() == "Down for maintenance"
    assert page.locator("img, script, iframe, link").count() == 0
    assert [each for each in requested if not each.endswith("/favicon.ico")] == [url]
    # The console shows the status itself, and would show a breach of the policy.
    assert [text for text in logged if "503" not in text and "favicon" not in text] == []
    context.close()


def test_policy_blocks_scripts(browser: Browser, service: Service) -> None:
    service.set(CLOSED)
    with visited(browser, service.at("page", "/plain/")) as page:
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate(
                "() => { const script = document.createElement('script'); script.textContent = 'document.title = 1';"
                " document.body.append(script) }"
            )
        assert page.title() == "Down for maintenance"


@pytest.mark.parametrize("scripts", [True, False])
def test_page_is_in_the_language_of_the_visitor_with_and_without_scripts(
    browser: Browser, service: Service, scripts: bool
) -> None:
    service.set(announced(minutes=30))
    for language, words in LANGUAGES.items() if scripts else [("de", LANGUAGES["de"])]:
        url = service.at("page", "/plain/")
        with visited(browser, url, locale=language, java_script_enabled=scripts) as page:
            assert page.locator("h1").inner_text() == page.title() == words.title
            assert page.locator("html").get_attribute("lang") == language
            text = page.locator("main").inner_text()
            assert (words.expected in text, "Nothing is lost." in text) == (True, True)


def test_page_shows_its_settings(browser: Browser, service: Service) -> None:
    service.set(BARE)
    with visited(browser, service.at("page", "/own/")) as page:
        assert page.locator("main").inner_text().strip() == "Umbau\n\nBis morgen"
        assert page.evaluate("getComputedStyle(document.querySelector('main')).borderTopColor") == "rgb(9, 8, 7)"
        page.goto(service.at("page", "/template/"))
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
        assert page.evaluate("document.querySelector('img').naturalWidth") == 20


def test_page_reloads_its_own_address_with_and_without_scripts(browser: Browser, service: Service) -> None:
    """Also at an address with a fragment, or one that looks like another host."""
    paths = ("/a", "/a%20b?x=%3C%27&y=é", "//evil.example/x", "//evil.example/x?//evil.example")
    service.set(MaintenanceState(holds=(Hold(id="deployment", on=True),)))
    url = service.at("page", "")
    with visited(browser, url) as first, visited(browser, url, java_script_enabled=False) as without_scripts:
        pages = [first.context.new_page() for _ in paths]
        for page, path in zip(pages, paths, strict=True):
            page.goto(f"{url}{path}#prices")
            assert page.title() == "Down for maintenance"
        service.set(OPEN)
        for page in (*pages, without_scripts):
            page.get_by_text("The shop is open").wait_for(timeout=60_000)
        found = [page.url.removesuffix("?") for page in pages]
    assert found == [f"{url}{path}".replace("é", "%C3%A9") for path in paths]


@pytest.mark.parametrize(
    ("host", "path", "shown"),
    [
        ("page", "/plain/", True),
        ("outside", "/plain/", False),
        ("page", "/framed/", False),
        ("outside", "/framed/", True),
    ],
)
def test_frame_of_an_allowed_origin_shows_the_page(
    browser: Browser, service: Service, host: str, path: str, shown: bool
) -> None:
    service.set(CLOSED)
    with visited(browser, service.at(host, f"/framing?shows={service.at('page', path)}")) as page:
        page.frames[1].wait_for_load_state()
        assert (page.frames[1].locator("h1").all_inner_texts() == ["Down for maintenance"]) is shown


def test_page_in_arabic_is_right_to_left_and_links_to_a_status_page(browser: Browser, service: Service) -> None:
    service.set(announced(hours=5))
    url = service.at("page", "/arabic/")
    with visited(browser, url, locale="ar-EG", viewport=PHONE, bypass_csp=True) as page:
        assert axe_passes(page) > 10
    with visited(browser, url, locale="ar-EG", viewport=PHONE) as page:
        assert page.evaluate("getComputedStyle(document.documentElement).direction") == "rtl"
        assert fits(page)
        page.route("https://status.example/**", lambda route: route.fulfill(body="All is well"))
        page.get_by_role("link", name="صفحة الحالة").click()
        page.wait_for_url("https://status.example/?a=1&lt=2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_of_the_page_is_written(browser: Browser, service: Service, scheme: str, tmp_path: Path) -> None:
    """In the folder `PICTURES`, from which the documentation shows them."""
    service.set(announced(minutes=30))
    picture = Path(os.environ.get("PICTURES", tmp_path)) / f"page-{scheme}.png"
    with visited(browser, service.at("page", "/plain/"), color_scheme=scheme) as page:
        assert page.screenshot(path=picture) == picture.read_bytes()
