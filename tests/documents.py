"""The documents, and their examples in order with their headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from tests.support import ROOT, client

README = ROOT / "README.md"
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
ROOTS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
"""Documents at the root that pages include."""
DOCUMENTS = [README, *ROOTS, *sorted(DOCS.rglob("*.md"))]
"""All documents for users."""
SPEC = [ROOT / "tests" / "spec" / name for name in ("overview.md", "custom-backends.md")]
"""The two documents that define the library."""
PATHS = ("/", "/health", "/health/live", "/healthy", "/billing/1", "/items", "/open", "/robots.txt")
"""Paths that the app of an example gets in addition to its own routes."""

_LINE = re.compile(r"^(?P<marks>#+) (?P<heading>.+)$|^(?P<fence>```)(?P<language>\w*)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block: the heading above it, its language, its text and its line in the document."""

    document: Path
    heading: str
    language: str
    text: str
    line: int

    def replaced(self, old: str, new: str) -> Self:
        """Return the block with another text instead of the old one."""
        assert old in self.text
        return replace(self, text=self.text.replace(old, new))

    def app(self, names: dict[str, Any] | None = None) -> FastAPI:
        """Execute the block, add its names to those given, and return its app, with routes at `PATHS`."""
        names = {} if names is None else names
        names |= self.run(**names)
        app: FastAPI = names["app"]
        for path in PATHS:
            app.add_api_route(path, lambda: "open", name=f"get {path}")
            app.add_api_route(path, lambda: "open", methods=["POST"], include_in_schema=False)
        return app

    def run(self, **names: object) -> dict[str, Any]:
        """Execute the block as a module with these names, and return all its names."""
        source = "\n" * self.line + self.text  # a traceback shows the line of the document
        namespace: dict[str, Any] = {"__name__": "example", **names}
        exec(compile(source, str(self.document), "exec"), namespace)  # noqa: S102 -- it is our own document
        return namespace


def examples_of(document: Path, language: str) -> list[Example]:
    """Return the blocks of a document in this language."""
    return [example for example in blocks_of(document) if example.language == language]


def example(heading: str, language: str = "python") -> Example:
    """Return the only example in this language under this heading in all documents."""
    found = [
        each for document in (*DOCUMENTS, *SPEC) for each in examples_of(document, language) if each.heading == heading
    ]
    (only,) = found
    return only


def blocks_of(document: Path) -> Iterator[Example]:
    """Yield all blocks of a document."""
    heading, block = "", None
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        match = _LINE.match(line)
        if block is not None:
            if line == "```":
                yield Example(document, heading, block[0], "\n".join(block[2]) + "\n", block[1])
                block = None
            else:
                block[2].append(line)
        elif match and match["fence"]:
            block = (match["language"], number, list[str]())
        elif match:
            heading = match["heading"]


async def ask(app: ASGIApp, request: str) -> httpx.Response:
    """Send a request such as `POST /items X-Admin-Key=secret-key from 10.9.9.9`."""
    line, _, peer = request.partition(" from ")
    words = line.split(" ")
    method = "GET" if words[0].startswith("/") else words.pop(0)
    headers = dict(word.split("=", 1) for word in words[1:])
    async with client(app, peer=(peer or "192.0.2.1", 50_000)) as http:
        return await http.request(method, words[0], headers=headers)


async def statuses(app: ASGIApp, *requests: str) -> list[int]:
    """Return the statuses of such requests."""
    return [(await ask(app, request)).status_code for request in requests]


def as_shown(response: httpx.Response, *headers: str) -> str:
    """Return a response with some of its headers, as documents show it."""
    kept = [f"{name}: {response.headers[name]}" for name in headers]
    return "\n".join([f"HTTP/1.1 {response.status_code} {response.reason_phrase}", *kept, "", response.text, ""])
