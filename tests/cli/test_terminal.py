"""The command as it is seen in a terminal, a wide one and a narrow one."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, set_maintenance_mode
from fastapi_maintenance.state import MaintenanceState, Switch

pytest.importorskip("termios", reason="a terminal of another kind")

from tests.cli.driving import busy_server, store, stored
from tests.cli.terminal import COMMAND, in_turn, piped, seen_of, terminal

pytestmark = [pytest.mark.servers, pytest.mark.no_cover]  # it happens in other processes


def spread(text: str) -> str:
    """Return a pattern of this text on a screen, wherever its lines end."""
    return r"\s*".join(map(re.escape, text.replace(" ", "")))


def own(screen: str) -> str:
    """Return a screen without the name of the switch, its workers, and when maintenance began and ended."""
    name = f"file:{Path('switch').absolute()}"
    nobody = spread(f"no worker has signed in behind {name}; is this the switch of the service?")
    released = r"released after \w+;\smaintenance\sis\s(still\s)?(on|off)"
    usual = rf"^(switch:\s({spread(name)}|\S+)|(on|off): {nobody}|maintenance begins|{released})\s*"
    return re.sub(usual, "", screen, flags=re.MULTILINE)


def words_of(screen: str) -> str:
    """Return the words on a screen, wherever its lines end, without for how long maintenance has been on or off."""
    return re.sub("^(on|off) for [0-9]+ s", r"\1", " ".join(screen.split()))


TEN = r"on: New database, back at ten until 2101-01-02 04:00:00 JST \(2101-01-01 19:00:00 UTC\), for \w+"
PLANNED = (
    r"planned \w{8} by bob: Old 2101-01-02 from 2101-01-02 05:00:00 JST \(2101-01-01 20:00:00 UTC\), in \w+ "
    r"until 2101-01-02 07:00:00 JST \(2101-01-01 22:00:00 UTC\), for 2h"
)
LINES = {
    "on --message 'New database, back at ten' --until 2101-01-01T19:00Z": (0, TEN),
    "plan --from 2101-01-01T20:00Z --for 2h -m 'Old 2101-01-02' --by bob": (0, PLANNED),
    "status": (0, f"{TEN} {PLANNED}"),
    "off": (0, f"off {PLANNED}"),
    "run -- true": (0, ""),
    f"run --message Deploying -- {COMMAND} status": (
        0,
        rf"on: Deploying held by 1 running job \(\w{{8}}\) {PLANNED}",
    ),
    "onn": (2, ".* Error: No such command 'onn'. Did you mean 'on'[?]"),
    "run": (2, ".* Error: Missing argument 'COMMAND'."),
    "on --for soon": (2, "error: --for: 'soon' is not a duration above zero, such as 90s, 30m, 2h, 1d or 1h30m"),
    "status --backend reddis://host": (2, "error: backend must begin with one of env: file: memory: redis: .*"),
}


def test_output_and_errors_in_a_narrow_terminal_are_whole() -> None:
    for (line, (status, pattern)), (ended, written) in zip(
        LINES.items(), in_turn(50, *map(shlex.split, LINES)), strict=True
    ):
        screen = seen_of(50, written)
        assert ended == status, screen
        assert re.fullmatch(pattern, words_of(own(screen))), (line, screen)
        assert re.search("Traceback|…|\ufffd", screen) is None


def test_status_has_a_line_for_each_fact_if_not_all_fit_on_one() -> None:
    store(Switch(on=True, message="New database", by="alice", ends_at=datetime(2101, 1, 1, 12, tzinfo=UTC)))
    wide, narrow = (own(seen_of(columns, in_turn(columns, ["status"])[0][1])) for columns in (120, 50))
    assert re.fullmatch(r"on by alice: New database  until .+ UTC\), for \w+", wide)
    assert re.match(r"on by alice: New database *\nuntil 2101-01-01 21:00:00 JST", narrow)


def test_watch_prints_each_change_until_ctrl_c() -> None:
    with terminal(50, "watch") as shown:
        shown.read_until(lambda screen: screen.endswith("off"))
        anyio.run(partial(set_maintenance_mode, True, LocalFileBackend("switch"), by="bob"))
        shown.read_until(lambda screen: screen.endswith("on by bob"))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert re.fullmatch(r"\d\d:\d\d:\d\d  off\n\d\d:\d\d:\d\d  on by bob\n\^C", own(shown.screen))
        assert shown.written.endswith(b"^C\r\n"), "the next prompt would stand behind the last line"


def test_drain_shows_the_requests_that_it_waits_for_until_ctrl_c() -> None:
    waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
    with busy_server(), terminal(50, "run", "--drain", "60s", "--", "touch", "ran") as shown:
        shown.read_until(lambda screen: waiting in words_of(screen))
        shown.press(b"\x03")
        assert shown.ended() == 130
        text = "interrupted; the hold was released, and the command was not started"
        assert words_of(own(shown.screen)) == text
        assert (stored(), Path("ran").exists()) == (MaintenanceState(), False)


# Colour


def colours(written: bytes) -> list[str]:
    """Return the parameters of the escape codes that set a colour: those of 30 to 37."""
    codes = re.findall(r"\x1b\[([\d;]*)m", written.decode())
    return [code for code in codes if re.search(r"\b3[0-7]\b", code)]


def test_terminal_gets_colour_unless_it_is_unwanted() -> None:
    lines = [["on"], ["status"], ["on", "--for", "soon"]]
    for (_, coloured), (_, plain) in zip(in_turn(120, *lines), in_turn(120, *lines, NO_COLOR="1"), strict=True):
        assert words_of(own(seen_of(120, coloured))) == words_of(own(seen_of(120, plain)))
        assert (bool(colours(coloured)), colours(plain)) == (True, [])


def test_pipe_gets_no_escape_code_and_one_line_however_long() -> None:
    done = piped(["on", "--for", "soon"], ["--help"], ["on", "--message", "a word and " * 30, "--until", "2101-01-01"])
    assert "\x1b" not in done.stdout + done.stderr
    *_, shown, last = done.stdout.split("\0")
    assert (len(shown.splitlines()), last) == (1, "")


def test_shell_can_complete_subcommands() -> None:
    script = piped(["--show-completion", "bash"], _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_FASTAPI_MAINTENANCE_COMPLETE=complete_bash" in script.stdout
    env = {"COMP_WORDS": "fastapi-maintenance o", "COMP_CWORD": "1"}
    done = piped([], _FASTAPI_MAINTENANCE_COMPLETE="complete_bash", **env)
    assert done.stdout.replace("\0", "").split() == ["on", "off"]
