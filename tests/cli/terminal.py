"""The command in a terminal of a set size: what it writes there, and what is then seen on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pyte
import pytest
import typer

from fastapi_maintenance.cli.commands import app
from tests.support import ROOT

COMMAND = Path(sysconfig.get_path("scripts")) / "fastapi-maintenance"
_AS_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_LINES = 100
_SAYS_HOW_TO_SHOW = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH", "CI"}


def surroundings(**env: str) -> dict[str, str]:
    """Return the environment of an operator, in which nothing but the terminal says what it can show."""
    return {
        **{name: value for name, value in os.environ.items() if name not in _SAYS_HOW_TO_SHOW},
        "PYTHONPATH": str(ROOT),
        "FASTAPI_MAINTENANCE_BACKEND": "file:switch",
        "LOGNAME": "alice",
        "TERM": "xterm-256color",
        "TZ": "JST-9",  # as POSIX has it, for machines without a list of zones
        **env,
    }


class Terminal:
    """A process on a pseudo terminal that is its own, so that Ctrl-C reaches it."""

    def __init__(self, columns: int, *words: str, **env: str) -> None:
        self.written = b""
        self._columns = columns
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AS_ITS_TERMINAL, str(COMMAND), *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=surroundings(**env),
            start_new_session=True,
        )
        os.close(slave)

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._master, keys)

    def read_until(self, condition: Callable[[str], bool], *, within: float = 60) -> None:
        """Read what the process writes until the screen fulfils this, or the process has ended."""
        end = time.monotonic() + within
        while not condition(self.screen):
            assert time.monotonic() < end, f"it has not come true:\n{self.screen}"
            if select.select([self._master], [], [], 0.1)[0] and not self._read():
                return

    def ended(self) -> int:
        """Read the rest and return the exit status."""
        self.read_until(lambda _: False)
        return self._process.wait(timeout=30)

    def close(self) -> None:
        """End the process if it has not ended, and give the terminal back."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        try:
            read = os.read(self._master, 65536)
        except OSError:  # how Linux says that nobody has the other side any more
            read = b""
        self.written += read
        return bool(read)

    @property
    def screen(self) -> str:
        """What is seen, without the empty lines below it."""
        return shown_on(self._columns, self.written)


@contextlib.contextmanager
def terminal(columns: int, *words: str, **env: str) -> Iterator[Terminal]:
    """Run the command with these words in a terminal of this width."""
    opened = Terminal(columns, *words, **env)
    try:
        yield opened
    finally:
        opened.close()


class _Output(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(columns: int, *words: str, status: int = 0, **env: str) -> str:
    """Run the command in this process as if it had a terminal of this width, and return what it writes there."""
    output = _Output()
    with (
        mock.patch.dict(os.environ, {**surroundings(**env), "COLUMNS": str(columns)}, clear=True),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        pytest.raises(SystemExit) as ended,
    ):
        time.tzset()
        typer.main.get_command(app).main(list(words), prog_name="fastapi-maintenance")
    time.tzset()
    assert ended.value.code == status, output.getvalue()
    return output.getvalue()


def seen(columns: int, *words: str, status: int = 0, **env: str) -> str:
    """Run the command in this process, and return what is then seen below the name of the switch."""
    text = shown_on(columns, written(columns, *words, status=status, **env).replace("\n", "\r\n").encode())
    assert not re.search("Traceback|…|\ufffd", text), text
    return re.sub(r"\A(switch: .*\n?)*", "", text)


def shown_on(columns: int, written: bytes) -> str:
    """Return what is seen on a screen of this width, without the empty lines below it."""
    screen = pyte.Screen(columns, _LINES)
    pyte.ByteStream(screen).feed(written)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()
