"""The command in a terminal of a set size: what it writes there, and what is then seen on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import sysconfig
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte

from tests.support import ROOT

COMMAND = Path(sysconfig.get_path("scripts")) / "fastapi-maintenance"
_IN_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_IN_TURN = """
import json, sys
from fastapi_maintenance.cli import main
lines = json.loads(sys.argv[1])
sys.argv[0] = "fastapi-maintenance"
for sys.argv[1:] in lines:
    try:
        main()
    except SystemExit as end:
        print(end="\\0", flush=True)
        print(end.code, end="\\0", file=sys.stderr, flush=True)
"""
_LINES = 100
_ABOUT_TERMINALS = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH", "CI"}


def environment(**env: str) -> dict[str, str]:
    """Return the environment of an operator, in which nothing but the terminal says what it can show."""
    return {
        **{name: value for name, value in os.environ.items() if name not in _ABOUT_TERMINALS},
        "PYTHONPATH": str(ROOT),
        "FASTAPI_MAINTENANCE_BACKEND": "file:switch",
        "TERM": "xterm-256color",
        "TZ": "JST-9",  # as POSIX writes it, for machines without a list of zones
        **env,
    }


class Terminal:
    """A process on a pseudo terminal of its own, so that Ctrl-C reaches it."""

    def __init__(self, columns: int, *words: str, **env: str) -> None:
        self.written = b""
        self._columns = columns
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_ITS_TERMINAL, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**env),
            start_new_session=True,
        )
        os.close(slave)

    @property
    def screen(self) -> str:
        """What is seen, without the empty lines below it."""
        return seen_of(self._columns, self.written)

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._master, keys)

    def read_until(self, condition: Callable[[str], bool]) -> None:
        """Read what the process writes until the screen fulfils a condition; fail if the process ends first."""
        while not condition(self.screen):
            assert self._read(), self.screen

    def ended(self) -> int:
        """Read the rest and return the exit status."""
        while self._read():
            pass
        return self._process.wait(timeout=30)

    def close(self) -> None:
        """Kill the process if it has not ended, and close the terminal."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        waited, _, _ = select.select([self._master], [], [], 60)
        assert waited, f"nothing more is written:\n{self.screen}"
        try:
            read = os.read(self._master, 65536)
        except OSError:  # Linux: the other side is closed
            read = b""
        self.written += read
        return bool(read)


def seen_of(columns: int, written: bytes) -> str:
    """Return what is seen on a screen on which this was written, without the empty lines below it."""
    screen = pyte.Screen(columns, _LINES)
    pyte.ByteStream(screen).feed(written)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()


@contextlib.contextmanager
def terminal(columns: int, *words: str, program: Sequence[str] = (str(COMMAND),), **env: str) -> Iterator[Terminal]:
    """Run the command with these words in a terminal of this width."""
    opened = Terminal(columns, *program, *words, **env)
    try:
        yield opened
    finally:
        opened.close()


def in_turn(columns: int, *lines: Sequence[str], **env: str) -> list[tuple[int, bytes]]:
    """Run the command for each of these lines, in one process; return the exit status and what was written."""
    program = (sys.executable, "-c", _IN_TURN)
    with terminal(columns, json.dumps(lines), program=program, **env) as shown:
        assert shown.ended() == 0, shown.screen
        written = shown.written.split(b"\0")[:-1]
    return [(int(status), text) for text, status in zip(written[::2], written[1::2], strict=True)]


def piped(*lines: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command for each of these lines, in one process without a terminal."""
    words = [sys.executable, "-c", _IN_TURN, json.dumps(lines)]
    return subprocess.run(
        words, env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
