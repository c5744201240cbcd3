"""The pictures of the README, each drawn from what it shows: `python -m tests.pictures` draws them anew."""

from __future__ import annotations

import io
import os
import re
import shlex
import socket
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.cli import terminal as terminals
from tests.support import ROOT

DOCS = ROOT / "docs"
_COLUMNS = 96
_COMMANDS = [
    'fastapi-maintenance on --message "New database" --for 30m',
    "fastapi-maintenance status",
    "fastapi-maintenance off",
    'fastapi-maintenance run --message "Deployment" -- fastapi-maintenance status',
    "fastapi-maintenance status",
]
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # from the web, where a reader's own will do


def terminal() -> str:
    """Draw an operator's terminal in which the command is really run, as SVG."""
    drawn = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # so that the picture shows a relative path
        place = {
            "FASTAPI_MAINTENANCE_BACKEND": "file:maintenance.txt",
            "PATH": os.pathsep.join([str(terminals.COMMAND.parent), os.environ["PATH"]]),
            "TZ": "CET-1",
        }
        for command in _COMMANDS:
            with terminals.terminal(_COLUMNS, *shlex.split(command)[1:], **place) as shown:
                assert shown.ended() == 0, shown.screen
                written = shown.written.decode().replace("\r\n", "\n").replace(f"@{socket.gethostname()}", "@host")
            drawn.print(Text.assemble(("$ ", "bright_black"), command))
            drawn.print(Text.from_ansi(written))
    return _FONTS.sub("", drawn.export_svg(title="", unique_id="terminal"))


PICTURES: dict[str, Callable[[], str]] = {"terminal.svg": terminal}
"""The name of each picture's file, and what draws it."""


def main() -> None:
    """Draw all pictures into the folder `docs`."""
    DOCS.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        Path(DOCS, name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
