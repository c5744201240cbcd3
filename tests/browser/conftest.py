"""One browser and one server for all tests."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.looking import Service
from tests.support import uvicorn_process

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIETLY = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run an installed browser; none is ever fetched."""
    (found, *_) = filter(None, map(shutil.which, BROWSERS))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[f"--{word}" for word in QUIETLY])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run the server in a folder with its switch."""
    folder = tmp_path_factory.mktemp("service")
    with uvicorn_process("tests.browser.served:app", folder=folder) as url:
        yield Service(url, folder)
