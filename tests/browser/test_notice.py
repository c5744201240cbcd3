"""The banner of the recipe for a public notice."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser

from fastapi_maintenance import Hold, MaintenanceState, Window
from tests.browser.looking import OPEN, PHONE, Service, axe_passes, visited
from tests.documents import example

MESSAGE = "We are <b>moving</b>."
HELD = MaintenanceState(holds=(Hold(id="a", on=True, message="New database"),))


def announced(*ahead: int, hours: int | None = 1) -> MaintenanceState:
    """Return windows that start in so many minutes."""
    starts = [datetime.now(UTC) + timedelta(minutes=minutes) for minutes in ahead]
    windows = [
        Window(
            id=str(at),
            starts_at=at,
            ends_at=None if hours is None else at + timedelta(hours=hours),
            message=MESSAGE if at == starts[0] else "Later.",
        )
        for at in starts
    ]
    return MaintenanceState(windows=tuple(windows))


@pytest.mark.parametrize(
    ("state_of", "shown"),
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
def test_banner_is_shown_30_minutes_ahead(
    browser: Browser, service: Service, state_of: Callable[[], MaintenanceState], shown: str | None
) -> None:
    service.set(OPEN)
    with visited(browser, service.at("notice", "/shop"), viewport=PHONE, timezone_id="UTC") as page:
        service.set(state := state_of())
        page.evaluate("showMaintenance()")  # as it does each minute
        texts = page.get_by_role("status").all_inner_texts()
        if state.windows and state.windows[0].ends_at:
            end = f"{state.windows[0].ends_at:%Y, %H:%M}"
            texts = [re.sub(rf"\d+ \w+ {end}", "END", text) for text in texts]
        assert texts == ([] if shown is None else [shown])
        assert axe_passes(page) > 5


def test_banner_is_shown_when_a_request_of_the_page_is_blocked(browser: Browser, service: Service) -> None:
    service.set(OPEN)
    with visited(browser, service.at("notice", "/shop")) as page:
        page.add_script_tag(content=example("fetch", "js").text)
        banner = page.get_by_role("status")
        statuses = [page.evaluate("ask('/items').then((response) => response.status)")]
        assert banner.all_inner_texts() == []
        service.set(HELD)
        statuses.append(page.evaluate("ask('/items').then((response) => response.status)"))
        banner.wait_for()
    assert statuses == [200, 503]
