"""The browser, one for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIETLY = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run a browser that is there; none is ever fetched."""
    (found, *_) = filter(None, map(shutil.which, BROWSERS))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[f"--{word}" for word in QUIETLY])
        yield browser
        browser.close()
