"""The pictures of the documentation, each drawn from real output: `python -m tests.pictures` draws them again."""

from __future__ import annotations

import io
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import anyio
from rich.console import Console
from rich.text import Text

from fastapi_maintenance import LocalFileBackend, get_workers
from tests.cli import terminal as terminals
from tests.support import ROOT, uvicorn_process

DOCS = ROOT / "docs"
_COLUMNS = 96
_COMMANDS = [
    'fastapi-maintenance on --message "New database" --for 30m',
    "fastapi-maintenance status",
    "fastapi-maintenance off",
    'fastapi-maintenance run --message "Deployment" -- fastapi-maintenance status',
    "fastapi-maintenance status",
]
_APP = """
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend="file:maintenance.txt"))
"""
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # from the web; the reader's own fonts are enough


@contextmanager
def _server(folder: Path) -> Iterator[None]:
    """Run an app behind the switch `maintenance.txt` in this folder."""
    folder.joinpath("shop.py").write_text(_APP, encoding="utf-8")
    with uvicorn_process("shop:app", "--workers", "2", folder=folder):
        while len(anyio.run(get_workers, LocalFileBackend(folder / "maintenance.txt"))) < 2:
            time.sleep(0.1)
        yield


def terminal() -> str:
    """Run the command in a terminal, beside a server with two workers, and return what is seen as SVG."""
    drawn = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory() as folder, chdir(folder), _server(Path(folder)):
        place = {
            "FASTAPI_MAINTENANCE_BACKEND": "file:maintenance.txt",
            "PATH": os.pathsep.join([str(terminals.COMMAND.parent), os.environ["PATH"]]),
            "TZ": "CET-1",
        }
        for command in _COMMANDS:
            with terminals.terminal(_COLUMNS, *shlex.split(command)[1:], **place) as shown:
                assert shown.ended() == 0, shown.screen
                written = shown.written.decode().replace("\r\n", "\n").replace(folder, "/srv/shop")
            drawn.print(Text.assemble(("$ ", "bright_black"), command))
            drawn.print(Text.from_ansi(written))
    return _FONTS.sub("", drawn.export_svg(title="", unique_id="terminal"))


PICTURES: dict[str, Callable[[], str]] = {"terminal.svg": terminal}
"""The file name of each picture, and the function that draws it."""


def main() -> None:
    """Draw all pictures into the folder `docs`."""
    DOCS.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        Path(DOCS, name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
