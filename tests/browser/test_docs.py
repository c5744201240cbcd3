"""The documentation as a reader sees it, built as the session `docs` builds it."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.looking import axe_passes, fits, visited
from tests.documents import ROOTS
from tests.support import ROOT

WIDE, NARROW = ViewportSize(width=1300, height=900), ViewportSize(width=360, height=740)
SIZES = [WIDE, ViewportSize(width=390, height=840)]
BEYOND = """() => {
  const edge = document.querySelector(".md-content__inner").getBoundingClientRect().right + 1;
  const tables = [...document.querySelectorAll(".md-typeset table")];
  const covered = [...document.querySelectorAll(".md-code__nav")].filter((button) => {
    const code = button.parentElement.querySelector("code");
    return code.getBoundingClientRect().right > button.getBoundingClientRect().left;
  });
  const isWide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  return [
    ...(isWide ? [document.body] : []),
    ...tables.filter((table) => table.getBoundingClientRect().right > edge),
    ...covered.map((button) => button.parentElement),
  ].map((each) => each.innerText.slice(0, 60));
}"""
"""Returns what is wider than the window or the text of a page, or lies under a copy button."""


class Files(SimpleHTTPRequestHandler):
    """The files of a folder."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        """Let the browser cache what many pages share."""
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


def build(folder: Path, *, front: str | None = None) -> subprocess.CompletedProcess[str]:
    """Build the documentation in a folder, with another front page if one is given."""
    for name in ("docs", "fastapi_maintenance"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for name in (*(path.name for path in ROOTS), "tests/doctest_fences.py", "zensical.toml"):
        shutil.copy(ROOT / name, folder / name)
    if front is not None:
        (folder / "docs" / "index.md").write_text(front, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation."""
    folder = tmp_path_factory.mktemp("documentation")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="session")
def site(built: Path) -> Iterator[str]:
    """Serve the documentation."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(built))) as server:
        server.daemon_threads = True  # the browser keeps its connections
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def pages_of(built: Path) -> list[str]:
    """Return the paths of all pages."""
    return [path.relative_to(built).as_posix() for path in built.rglob("*.html")]


def search(page: Page, word: str) -> None:
    """Type a word into the search, and wait for the page about it."""
    page.get_by_role("button", name="Search").click()
    page.get_by_label("Search", exact=True).and_(page.locator("[type=text]")).fill(word)
    page.get_by_role("heading", name=f"Behind {word}").first.wait_for(timeout=30_000)


@pytest.mark.parametrize(
    ("links", "errors"),
    [
        (
            ["[a page](nowhere.md)", "[a heading](tutorial.md#nowhere)", "[a name][fastapi_maintenance.nowhere]"],
            ["page does not exist", "anchor does not exist", "unresolved autoref"],
        ),
        (["::: fastapi_maintenance.nowhere"], ["fastapi_maintenance.nowhere could not be found"]),
    ],
)
def test_link_that_leads_nowhere_fails_the_build(links: list[str], errors: list[str], tmp_path: Path) -> None:
    done = build(tmp_path, front="\n\n".join(["# Home", *links]))
    assert done.returncode != 0
    assert [text for text in errors if text not in done.stdout + done.stderr] == []


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_page_is_accessible_and_has_the_colours_of_the_visitor(
    browser: Browser, site: str, viewport: ViewportSize, scheme: str
) -> None:
    """The front page, pages with tables, and one of the reference."""
    with visited(browser, site, viewport=viewport, color_scheme=scheme) as page:
        for path in ("", "how-to/stores/", "operations/retry-after/", "reference/router/"):
            page.goto(f"{site}{path}")
            assert fits(page)
            expected = {"light": "default", "dark": "slate"}[scheme]
            assert page.locator("body").get_attribute("data-md-color-scheme") == expected
            assert axe_passes(page) > 10


def test_page_fits_on_a_screen_and_a_phone_and_requests_no_other_host(browser: Browser, site: str, built: Path) -> None:
    requested: list[str] = []
    found: dict[str, list[str]] = {}
    with visited(browser, site, viewport=WIDE) as page:
        page.on("request", lambda request: requested.append(request.url))
        for path in pages_of(built):
            page.goto(f"{site}{path}")
            for size in SIZES:
                page.set_viewport_size(size)
                found[f"{path} {size['width']}"] = page.evaluate(BEYOND)
        page.set_viewport_size(WIDE)
        search(page, "nginx")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site}operations/nginx/**")
    assert len(requested) > len(found) > 80
    assert {path: wide for path, wide in found.items() if wide} == {}
    assert [url for url in requested if not url.startswith((site, "data:", "blob:"))] == []


def test_examples_of_docstrings_are_shown_as_code(built: Path) -> None:
    pages = {path.parent.name: path.read_text(encoding="utf-8") for path in built.glob("reference/*/index.html")}
    assert len(pages) > 10
    assert '<span class="gp">&gt;&gt;&gt; </span>' in pages["predicates"]
    assert [name for name, text in pages.items() if "<blockquote" in text] == []  # `>>>` is a quotation in Markdown


def test_reader_switches_the_colours_and_copies_an_example(browser: Browser, site: str) -> None:
    settings = {"viewport": WIDE, "color_scheme": "light", "permissions": ["clipboard-read", "clipboard-write"]}
    with visited(browser, site, **settings) as page:
        for name, scheme in (("Switch to light mode", "default"), ("Switch to dark mode", "slate")):
            page.get_by_title(name).click()
            expect(page.locator("body")).to_have_attribute("data-md-color-scheme", scheme)
        page.get_by_title("Copy to clipboard").first.click()
        copied: str = page.wait_for_function("() => navigator.clipboard.readText()").json_value()
    assert copied.strip() == 'pip install "fastapi-maintenance>=1"'
