"""The README as a package index shows it, `hatch_build.py`."""

from __future__ import annotations

import re

import pytest

from hatch_build import with_absolute_links
from tests.documents import README
from tests.support import ROOT

URL = "https://files.example/blob/v1/"
PICTURE = "![A plot](docs/plots/off.svg)"


@pytest.mark.parametrize(
    ("text", "absolute", "without"),
    [
        ("see [a](docs/a.md)", f"see [a]({URL}docs/a.md)", "see a"),
        ("see [a](docs/a.md#b)", f"see [a]({URL}docs/a.md#b)", "see a"),
        ("[`a.py`](a.py), [b](b.py)", f"[`a.py`]({URL}a.py), [b]({URL}b.py)", "`a.py`, b"),
        ("[a](https://a.example)", "[a](https://a.example)", "[a](https://a.example)"),
        ("[a](#a)", "[a](#a)", "[a](#a)"),
        ("`[redis]` (or not)", "`[redis]` (or not)", "`[redis]` (or not)"),
        (f"a\n\n{PICTURE}\n\nb", f"a\n\n![A plot]({URL}docs/plots/off.svg?raw=true)\n\nb", "a\n\nb"),
    ],
)
def test_with_absolute_links_makes_relative_links_absolute_or_removes_them(
    text: str, absolute: str, without: str
) -> None:
    assert with_absolute_links(text, URL) == absolute
    assert with_absolute_links(text, "") == without


def test_with_absolute_links_of_the_readme_lead_to_files_or_are_removed() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(rf"\]\({URL}([^)?#]+)", with_absolute_links(text, URL))
    assert len(links) == len(re.findall(r"\]\((?!https?://|#)", text)) > 40
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert re.findall(r"\]\((?!https?://|#).*?\)", with_absolute_links(text, "")) == []
