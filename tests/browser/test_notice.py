"""The banner of the recipe for a public notice, in a page of an app that has it: in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fastapi_maintenance import Hold, MaintenanceState, Window
from fastapi_maintenance.codec import state_to_text
from tests.browser.looking import PHONE, axe_passes, visited
from tests.documents import example
from tests.support import uvicorn_process

MESSAGE = "We are <b>moving</b>."
HELD = MaintenanceState(holds=(Hold(id="a", on=True, message="New database"),))
APP = '''
from fastapi.responses import HTMLResponse

PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Shop</title><meta name="viewport" content="width=device-width"></head>
<body><main><h1>Shop</h1>
{banner}</main></body></html>"""

@app.get("/items")
async def items(): ...

@app.get("/shop")
async def shop():
    return HTMLResponse(PAGE)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notice")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Run the app of the recipe, with a page that has its banner."""
    banner = example("A banner 30 minutes ahead", "html").text
    served = example("A public notice").text.replace("maintenance_notice()", "maintenance_notice(max_age=0.1)")
    page = APP.replace("{banner}", banner)
    (folder / "served.py").write_text(f"{served}\n{page}", encoding="utf-8")
    with uvicorn_process("served:app", folder=folder) as url:
        yield url


@contextmanager
def shop(browser: Browser, url: str, folder: Path, state: MaintenanceState) -> Iterator[Page]:
    """Open the page while it is open, with the switch as it is then."""
    (folder / "maintenance.txt").unlink(missing_ok=True)
    with visited(browser, f"{url}/shop", viewport=PHONE, timezone_id="UTC") as page:
        (folder / "maintenance.txt").write_text(state_to_text(state), encoding="utf-8")
        page.evaluate("showMaintenance()")  # as it does each minute
        yield page


def announced(*ahead: int, hours: int | None = 1) -> MaintenanceState:
    """Return windows that are to come, in so many minutes."""
    starts = [datetime.now(UTC) + timedelta(minutes=minutes) for minutes in ahead]
    ends = [None if hours is None else at + timedelta(hours=hours) for at in starts]
    messages = [MESSAGE, *["Later."] * (len(ahead) - 1)]
    windows = [
        Window(id=str(at), starts_at=at, ends_at=end, message=message)
        for at, end, message in zip(starts, ends, messages, strict=True)
    ]
    return MaintenanceState(windows=tuple(windows))


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (MaintenanceState, None),
        (lambda: announced(40), None),
        (lambda: announced(25), f"Maintenance begins in 25 min (until END). {MESSAGE}"),
        (lambda: announced(25, 28), f"Maintenance begins in 25 min (until END). {MESSAGE}"),
        (lambda: announced(-1, 90), f"We are down for maintenance (until END). {MESSAGE}"),
        (lambda: announced(25, hours=None), f"Maintenance begins in 25 min. {MESSAGE}"),
        (lambda: HELD, "We are down for maintenance. New database"),
    ],
    ids=["off", "in 40 minutes", "in 25 minutes", "two", "on, and another", "without an end", "held on"],
)
def test_the_banner_is_shown_half_an_hour_ahead(
    browser: Browser, url: str, folder: Path, make: Callable[[], MaintenanceState], shown: str | None
) -> None:
    state = make()
    with shop(browser, url, folder, state) as page:
        banner = page.get_by_role("status")
        texts = banner.all_inner_texts()
        if state.windows and state.windows[0].ends_at:
            end = f"{state.windows[0].ends_at:%Y, %H:%M}"
            texts = [re.sub(rf"\d+ \w+ {end}", "END", text) for text in texts]
        assert ([] if shown is None else [shown]) == texts
        assert axe_passes(page) > 5


def test_the_banner_is_shown_when_a_request_of_the_page_is_blocked(browser: Browser, url: str, folder: Path) -> None:
    (folder / "maintenance.txt").unlink(missing_ok=True)
    with visited(browser, f"{url}/shop") as page:
        page.add_script_tag(content=example("fetch", "js").text)
        banner = page.get_by_role("status")
        statuses = [page.evaluate("ask('/items').then((response) => response.status)")]
        assert banner.all_inner_texts() == []
        (folder / "maintenance.txt").write_text(state_to_text(HELD), encoding="utf-8")
        statuses.append(page.evaluate("ask('/items').then((response) => response.status)"))
        banner.wait_for()
    assert statuses == [200, 503]


def test_a_picture_of_it_is_taken(browser: Browser, url: str, folder: Path, tmp_path: Path) -> None:
    begin = time.time()
    with shop(browser, url, folder, announced(25)) as page:
        page.screenshot(path=tmp_path / "banner.png")
    assert (tmp_path / "banner.png").stat().st_mtime >= begin - 1
