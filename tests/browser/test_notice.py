"""The banner of the recipe for a public notice, in a page of an app that has it: in a real browser."""

from __future__ import annotations

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
    with visited(browser, f"{url}/shop", viewport=PHONE) as page:
        (folder / "maintenance.txt").write_text(state_to_text(state), encoding="utf-8")
        page.evaluate("showMaintenance()")  # as it does each minute
        yield page


def announced(**ahead: float) -> MaintenanceState:
    """Return a window that is to come."""
    starts_at = datetime.now(UTC) + timedelta(**ahead)
    window = Window(id="a", starts_at=starts_at, ends_at=starts_at + timedelta(hours=1), message=MESSAGE)
    return MaintenanceState(windows=(window,))


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (MaintenanceState, None),
        (lambda: announced(minutes=40), None),
        (lambda: announced(minutes=25), f"Maintenance begins in 25 min. {MESSAGE}"),
        (lambda: announced(minutes=-1), f"We are down for maintenance. {MESSAGE}"),
        (lambda: HELD, "We are down for maintenance. New database"),
    ],
    ids=["off", "in 40 minutes", "in 25 minutes", "on", "held on"],
)
def test_the_banner_is_shown_half_an_hour_ahead(
    browser: Browser, url: str, folder: Path, state: Callable[[], MaintenanceState], shown: str | None
) -> None:
    with shop(browser, url, folder, state()) as page:
        banner = page.get_by_role("status")
        assert ([] if shown is None else [shown]) == banner.all_inner_texts()
        assert axe_passes(page) > 5


def test_a_picture_of_it_is_taken(browser: Browser, url: str, folder: Path, tmp_path: Path) -> None:
    begin = time.time()
    with shop(browser, url, folder, announced(minutes=25)) as page:
        page.screenshot(path=tmp_path / "banner.png")
    assert (tmp_path / "banner.png").stat().st_mtime >= begin - 1
