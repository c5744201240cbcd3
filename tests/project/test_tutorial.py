"""The tutorial and the quick start, followed like a reader: two terminals, one folder, the blocks in order."""

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.documents import README, TUTORIAL, Example, blocks_of
from tests.servers import running
from tests.support import ROOT, free_port

LIMIT = 150.0
"""Seconds after which everything that a document started is killed."""
GIVES = {
    "fastapi-maintenance[cli]>=1": [
        "fastapi",
        "fastapi_maintenance",
        "fastapi_maintenance.testing",
        "fastapi-maintenance",
    ],
    "fastapi-maintenance[redis]>=1": ["redis"],
    "httpx2": ["fastapi.testclient"],
}
"""What can be imported, run or connected to after installing something of another name."""
VARYING = [
    (r"file:\S*/", "file:/"),
    (r"until .+? for ", "until then, for "),
    (r"retry-after: 1(800|79\d)", "retry-after: in half an hour"),
    (r"(?<=for )\d+ s|(?<=; )\d+ s|(?<=after )[\d.]+ ?s", "some seconds"),
]
"""What differs between runs in the output."""


class Terminal:
    """A shell in a folder, whose output and errors are read together."""

    def __init__(self, folder: Path) -> None:
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("SHOP_", "FASTAPI_", "PYTEST"))
        }
        env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), str(Path(sys.executable).parent), env["PATH"]])
        self.process = subprocess.Popen(
            ["bash", "--norc"],  # noqa: S607 -- the one in the PATH
            cwd=folder,
            env=env | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        self.timer = threading.Timer(LIMIT, self.kill)
        self.timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        self.kill()
        self.process.communicate()

    def kill(self) -> None:
        """Kill the shell and everything that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def run(self, line: str) -> list[str]:
        """Run a line, and return its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\nprintf '\\nended with %s\\n' $?\n")
        self.process.stdin.flush()
        printed: list[str] = []
        for each in self.process.stdout:
            if each.startswith("ended with"):
                assert each == "ended with 0\n", (line, printed)
                return printed
            printed.append(each.strip())
        raise AssertionError((line, printed))


@dataclass
class Reader:
    """Somebody who does what a document says, with a free port instead of that of the document."""

    folder: Path
    server: Terminal
    other: Terminal
    places: dict[str, str]
    port: int

    def run(self, block: Example, *, is_served: bool) -> list[str]:
        """Run the commands of a block, and return their output."""
        if "uvicorn " not in block.text:
            return [each for line in self.lines(block) for each in self.other.run(line)]
        if is_served:
            self.server.run("kill -INT $!; wait $!")  # like Ctrl-C
        for line in self.lines(block):
            self.server.run(f"{line} --port {self.port} >server.log 2>&1 &" if line.startswith("uvicorn ") else line)
        self.server.run(f"until curl -so server.out localhost:{self.port}/ || ! kill -0 $!; do sleep 0.1; done")
        return []

    def lines(self, block: Example) -> Iterator[str]:
        """Yield the commands of a block with the reader's hosts and ports, without `pip`."""
        for line in block.text.replace("\\\n", " ").splitlines():
            if not line.startswith("pip "):
                yield "".join(self.places.get(part, part) for part in re.split(r"(localhost(?::8000)?\b)", line))


@contextmanager
def reader(folder: Path, redis: str = "") -> Iterator[Reader]:
    """Open the two terminals."""
    port = free_port()
    places = {"localhost:8000": f"localhost:{port}", "localhost": redis.removeprefix("redis://")}
    with Terminal(folder) as server, Terminal(folder) as other:
        yield Reader(folder, server, other, places, port)


def comparable(line: str) -> str:
    """Return a printed line without what differs from run to run."""
    for pattern, word in VARYING:
        line = re.sub(pattern, word, line)
    return line


def follow(document: Path, blocks: list[Example], me: Reader) -> None:
    """Do what the blocks say, and compare the output with what they show."""
    prose = document.read_text(encoding="utf-8").splitlines()
    printed: list[str] = []
    for block in blocks:
        if block.language == "python":
            (name,) = re.findall(r"`(\w+\.py)`", " ".join(paragraph_before(prose, block.line)))
            (me.folder / name).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            printed = me.run(block, is_served=(me.folder / "server.log").exists())
        else:
            seen = "\n".join(map(comparable, printed))
            assert [line for line in block.text.splitlines() if comparable(line) not in seen] == [], seen


def paragraph_before(lines: list[str], line: int) -> list[str]:
    """Return the paragraph before a block."""
    end = line - 2
    begin = next(number for number in range(end - 1, -1, -1) if not lines[number])
    return lines[begin:end]


@pytest.mark.servers
def test_tutorial_that_is_followed_prints_what_it_shows(tmp_path: Path) -> None:
    """A client that polls the service sees it closed during the migration."""
    seen, over = set[tuple[int, str]](), threading.Event()

    def poll(url: str) -> None:
        while not over.wait(0.1):
            try:
                response = httpx.get(url, timeout=30)
            except httpx.TransportError:
                continue  # the server is being restarted
            seen.add((response.status_code, response.text if "detail" in response.text else ""))

    with ExitStack() as stack:
        store = stack.enter_context(running("redis"))
        me = stack.enter_context(reader(tmp_path, store.url))
        stack.callback(over.set)
        threading.Thread(target=poll, args=[f"http://127.0.0.1:{me.port}/items"], daemon=True).start()
        follow(TUTORIAL, list(blocks_of(TUTORIAL)), me)
    closed = [(503, f'{{"detail":"{message}"}}') for message in ("Back at ten", "New database")]
    assert seen == {(200, ""), *closed}


@pytest.mark.servers
def test_quick_start_that_is_followed_prints_what_it_shows(tmp_path: Path) -> None:
    with reader(tmp_path) as me:
        follow(README, [block for block in blocks_of(README) if block.heading == "Quick start"], me)


def needed(block: Example) -> set[str]:
    """Return what a block imports, runs or connects to, without Python and its standard library."""
    if block.language == "console":
        commands = [shlex.split(line)[0] for line in block.text.replace("\\\n", " ").splitlines()]
        return {*commands, *re.findall(r"redis(?=://)", block.text)} - {"curl", "export", "ls", "pip"}
    nodes = list(ast.walk(ast.parse(block.text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("document", [TUTORIAL, README], ids=["tutorial", "quick start"])
def test_tutorial_installs_packages_before_it_needs_them(document: Path) -> None:
    installed = {"python3", "shop"}  # Python, and the reader's own program
    for block in blocks_of(document):
        if document == TUTORIAL or block.heading == "Quick start":
            for line in re.findall(r"^pip install (.+)$", block.text, re.MULTILINE):
                installed |= {each for name in shlex.split(line) for each in GIVES.get(name, [name])}
            if block.language in {"python", "console"}:
                assert needed(block) - installed == set(), block
