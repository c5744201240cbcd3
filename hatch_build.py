"""What a package index shows: the README, whose relative links lead nowhere there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Sets the README, with its links as `[tool.hatch.metadata.hooks.custom]` of `pyproject.toml` has them."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        readme = with_absolute_links(text, self.config["files-url"])
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}


def with_absolute_links(text: str, url: str) -> str:
    """Return a text whose relative links and pictures are absolute, or left out if there is no URL."""
    relative = r"\((?!https?://|#)([^)\s]+)\)"
    if url:
        text = re.sub(rf"(!\[[^]]*\]){relative}", rf"\1({url}\2?raw=true)", text)
        return re.sub(rf"(\]){relative}", rf"\1({url}\2)", text)
    text = re.sub(rf"^!\[[^]]*\]{relative}\n\n?", "", text, flags=re.MULTILINE)
    return re.sub(rf"\[([^]]*)\]{relative}", r"\1", text)
