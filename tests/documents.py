"""The documents and their examples, as a reader finds them: in their order, under their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
ROOTS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
"""Documents at the root that pages include, so that they stand where people look for them as well."""
DOCUMENTS = [README, *ROOTS, *sorted(DOCS.rglob("*.md"))]
"""All that people are given to read."""

_LINE = re.compile(r"^(?P<marks>#+) (?P<heading>.+)$|^(?P<fence>```)(?P<language>\w*)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block: the heading that it stands under, its language, its text and its line in the document."""

    document: Path
    heading: str
    language: str
    text: str
    line: int

    def run(self, **names: object) -> dict[str, object]:
        """Execute the block as a module in which these names exist, and return its names."""
        source = "\n" * self.line + self.text  # so that a traceback shows the line of the document
        namespace: dict[str, object] = {"__name__": "example", **names}
        exec(compile(source, str(self.document), "exec"), namespace)  # noqa: S102 -- it is our own document
        return namespace


def examples_of(document: Path, language: str) -> list[Example]:
    """Return the blocks of a document in this language."""
    return [example for example in blocks_of(document) if example.language == language]


def example(heading: str, language: str = "python") -> Example:
    """Return the one example in this language that stands under a heading, in whichever document."""
    found = [each for document in DOCUMENTS for each in examples_of(document, language) if each.heading == heading]
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
