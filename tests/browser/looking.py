"""How a page is looked at: its windows, a visit, and the check of its accessibility."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize

DESKTOP, PHONE = ViewportSize(width=1000, height=560), ViewportSize(width=320, height=568)


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


def axe_passes(page: Page) -> int:
    """Check the accessibility of a page, and return how many rules it keeps; those that it breaks fail the test."""
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run()")
    broken = [
        (each["id"], each["help"], [(node["html"], node["failureSummary"]) for node in each["nodes"]])
        for each in found["violations"]
    ]
    assert not broken, broken
    return len(found["passes"])
