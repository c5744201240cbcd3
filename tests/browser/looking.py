"""How the tests visit a page, close the service, and check the accessibility."""

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize

from fastapi_maintenance import MaintenanceState, Switch
from fastapi_maintenance.codec import state_to_text

DESKTOP, PHONE = ViewportSize(width=1000, height=560), ViewportSize(width=320, height=568)
OPEN, CLOSED = MaintenanceState(), MaintenanceState(switch=Switch(on=True, message="Back at ten"))


class Service:
    """A server whose apps each have a host of their own, and one switch."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._port = url.rpartition(":")[2]
        self._switch = folder / "maintenance.txt"

    def at(self, name: str, path: str = "/") -> str:
        """Return the URL of a path of an app."""
        return f"http://{name}.localhost:{self._port}{path}"

    def set(self, state: MaintenanceState) -> None:
        """Set the state of the switch."""
        self._switch.with_suffix(".new").write_text(state_to_text(state), encoding="utf-8")
        self._switch.with_suffix(".new").replace(self._switch)


@contextmanager
def visited(browser: Browser, url: str, **settings: Any) -> Iterator[Page]:  # noqa: ANN401 -- those of a context
    """Open a page in a context of its own."""
    context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **settings})
    page = context.new_page()
    page.goto(url)
    try:
        yield page
    finally:
        context.close()


def fits(page: Page) -> bool:
    """Return whether the page is no wider than its window."""
    seen: bool = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return seen


def axe_passes(page: Page) -> int:
    """Return how many rules of accessibility the page keeps; fail if it breaks one."""
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run()")
    broken = [
        (each["id"], each["help"], [(node["html"], node["failureSummary"]) for node in each["nodes"]])
        for each in found["violations"]
    ]
    assert not broken, broken
    return len(found["passes"])
