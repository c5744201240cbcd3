"""The command as it is seen in a terminal, a wide one and a narrow one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, set_maintenance_mode
from fastapi_maintenance.state import MaintenanceState, Switch

pytest.importorskip("termios", reason="a terminal of another kind")

from tests.cli.driving import state, write
from tests.cli.terminal import COMMAND, in_turn, piped, seen_of, terminal
from tests.cli.test_drain import busy_server

pytestmark = [pytest.mark.servers, pytest.mark.no_cover]  # it happens in other processes

WIDTHS = [120, 40]
ESCAPE = "\x1b"


@pytest.fixture(params=WIDTHS)
def columns(request: pytest.FixtureRequest) -> int:
    """Return a width of the terminal."""
    return int(request.param)


def spread(text: str) -> str:
    """Return a pattern of this text on a screen, wherever its lines end."""
    return r"\s*".join(map(re.escape, text.replace(" ", "")))


def own(screen: str) -> str:
    """Return a screen without the name of the switch, who has its state, and when maintenance began and ended."""
    name = f"file:{Path('switch').absolute()}"
    nobody = spread(f"no worker has signed in behind {name}; is this the switch of the service?")
    released = r"released after \w+;\smaintenance\sis\s(still\s)?(on|off)"
    of_each = rf"^(switch:\s({spread(name)}|\S+)|(on|off): {nobody}|maintenance begins|{released})\s*"
    return re.sub(of_each, "", screen, flags=re.MULTILINE)


def seen(columns: int, *lines: str | Sequence[str], status: int = 0, **env: str) -> list[str]:
    """Run the command for each line, in a terminal and in turn, and return what stands on each screen of its own."""
    screens = []
    for ended, written in in_turn(
        columns, *(shlex.split(line) if isinstance(line, str) else line for line in lines), **env
    ):
        screen = seen_of(columns, written)
        assert ended == status, screen
        assert re.search("Traceback|…|\ufffd", screen) is None, screen
        screens.append(own(screen))
    return screens


def words_of(screen: str) -> list[str]:
    """Return the words on a screen, without the frames around them."""
    return re.sub(r"[─│╭╮╰╯]", " ", screen).split()


def reads(screen: str) -> str:
    """Return what is read on a screen: its words, wherever a line ends."""
    return " ".join(words_of(screen))


def lasting(shown: str) -> str:
    """Return what is shown without for how long it has been so."""
    return re.sub(r"(?<=^on)( for \d+ s)?|(?<=^off) for \d+ s", "", shown, flags=re.MULTILINE)


# Help


def test_help_has_each_option_and_each_word_whole() -> None:
    names = ["", "on", "off", "edit", "plan", "cancel", "status", "workers", "routes", "watch", "run", "release"]
    helps = [seen(columns, *(f"{name} --help" for name in names)) for columns in (250, 120, 40)]
    for screens in zip(*helps, strict=True):
        widest, *others = [[word.strip(",:[]") for word in words_of(screen)] for screen in screens]
        options = [word for word in widest if word.startswith("-")]
        sentences = {word for word in widest if re.fullmatch(r"[a-zA-Z_.,:/-]+", word)}  # not the types of a table
        assert options
        assert len(sentences) > 15
        for narrower in others:
            assert sorted(options) == sorted(word for word in narrower if word.startswith("-"))
            assert sentences - set(narrower) == set()


def test_command_without_a_word_shows_the_help(columns: int) -> None:
    (asked,) = seen(columns, "--help")
    assert [reads(screen) for screen in seen(columns, "", status=2)] == [reads(asked)]


# What is shown


def test_on_shows_the_end_in_the_operators_zone_and_in_utc(columns: int) -> None:
    before = datetime.now(UTC)
    told, again = map(reads, seen(columns, "on --message 'New database, back at ten' --for 30m", "status"))
    shown = re.fullmatch(
        r"on(?: for \d+ s)?: New database, back at ten until (\S+ \S+) JST \((?:\S+ )?(\S+) UTC\), for (30m|29m5\ds)",
        told,
    )
    assert shown, told
    in_tokyo = datetime.fromisoformat(shown[1]).replace(tzinfo=timezone(timedelta(hours=9)))
    assert timedelta(minutes=29, seconds=58) < in_tokyo - before < timedelta(minutes=31)
    assert shown[2] == f"{in_tokyo.astimezone(UTC):%H:%M:%S}"
    assert re.sub(r"\S+$", "", lasting(told)) == re.sub(r"\S+$", "", lasting(again))


def test_planned_window_is_shown_whole(columns: int) -> None:
    plan = "plan --from 2101-01-01T20:00Z --until 2101-01-01T22:00Z -m 'New database' --by bob"
    window = (
        r"planned [0-9a-f]{8} by bob: New database from 2101-01-02 05:00:00 JST \(2101-01-01 20:00:00 UTC\), in \w+ "
        r"until 2101-01-02 07:00:00 JST \(2101-01-01 22:00:00 UTC\), for 2h"
    )
    for screen, text in zip(seen(columns, plan, "status"), (window, f"off {window}"), strict=True):
        assert re.fullmatch(text, reads(screen)), screen


def test_status_has_a_line_for_each_fact_if_not_all_fit_on_one() -> None:
    wide = seen(120, "on --message 'New database' --until 2101-01-01T12:00Z --by alice", "status")[1]
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database  until .+ UTC\), for \w+", wide)
    first, second = [line.rstrip() for line in seen(40, "status")[0].splitlines()][:2]
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database", first)
    assert second.startswith("until 2101-01-01 21:00:00 JST")


def test_message_cannot_change_what_else_is_seen(columns: int) -> None:
    write(MaintenanceState(switch=Switch(on=True, message="[red]Back[/]\n:smile: \x1b[2J\x1b[1;1Hopen\x07")))
    assert [*map(reads, seen(columns, "status"))] == ["on: [red]Back[/] :smile: [2J [1;1Hopen"]


def test_run_leaves_the_output_of_its_command_alone(columns: int) -> None:
    silent, told = map(reads, seen(columns, "run -- true", f"run --message Deploying -- {COMMAND} status"))
    assert not silent
    assert re.fullmatch(r"on( for \d+ s)?: Deploying held by 1 running job \([0-9a-f]{8}\)", told), told


def test_watch_shows_each_change_until_ctrl_c(columns: int) -> None:
    with terminal(columns, "watch") as shown:
        shown.read_until(lambda screen: screen.endswith("off"))
        anyio.run(partial(set_maintenance_mode, True, LocalFileBackend("switch"), by="bob"))
        shown.read_until(lambda screen: screen.endswith("on by bob"))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert re.fullmatch(r"\d\d:\d\d:\d\d  off\n\d\d:\d\d:\d\d  on by bob\n\^C", own(shown.screen))
        assert shown.written.endswith(b"^C\r\n"), "the next prompt would stand behind the last line"


def test_drain_shows_the_requests_it_waits_for_until_the_time_is_over_or_ctrl_c() -> None:
    waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
    with busy_server():
        for columns in WIDTHS:
            with terminal(columns, "run", "--drain", "4s", "--", "touch", "ran") as shown:
                shown.read_until(lambda screen: waiting in reads(screen) and "; 1 s left" in reads(screen))
                assert shown.ended() == 75
                assert re.fullmatch(
                    r"error: requests are not drained after 4 s: process \d+ on \S+ has 1 request in progress, "
                    r"POST /orders/\{number\} for \d+ s the hold was given back, and the command was not started",
                    reads(own(shown.screen)),
                )
            with terminal(columns, "run", "--drain", "60s", "--", "touch", "ran") as shown:
                shown.read_until(lambda screen: "waiting for 1 request" in reads(screen))
                shown.press(b"\x03")
                assert shown.ended() == 130
                assert (
                    reads(own(shown.screen)) == "interrupted; the hold was given back, and the command was not started"
                )
        assert (state(), Path("ran").exists()) == (MaintenanceState(), False)


# What is wrong


def test_error_is_short_and_whole(columns: int) -> None:
    wrong = {
        "onn": "No such command 'onn'. Did you mean 'on'?",
        "run": "Missing argument 'COMMAND'.",
        "on --for soon": "error: --for: 'soon' is not a duration above zero, such as 90s, 30m, 2h, 1d or 1h30m",
        "status --backend reddis://host": "error: backend must begin with one of env: file: memory: redis:",
    }
    for screen, text in zip(seen(columns, *wrong, status=2), wrong.values(), strict=True):
        assert text in reads(screen)
        assert len(screen.splitlines()) <= (8 if columns < 80 else 5)


# Colour


def colours(written: bytes) -> list[str]:
    """Return the parameters of the escape codes that set a colour: those of 30 to 37."""
    codes = re.findall(r"\x1b\[([\d;]*)m", written.decode())
    return [code for code in codes if re.search(r"\b3[0-7]\b", code)]


SHOWING = [["on"], ["status"], ["on", "--for", "soon"], ["onn"], ["--help"]]


def test_terminal_gets_colour_unless_it_is_unwanted() -> None:
    for (_, coloured), (_, plain) in zip(in_turn(120, *SHOWING), in_turn(120, *SHOWING, NO_COLOR="1"), strict=True):
        assert lasting(seen_of(120, coloured)) == lasting(seen_of(120, plain))
        assert colours(coloured)
        assert colours(plain) == []


def test_pipe_gets_no_escape_code_and_one_line_however_long() -> None:
    done = piped(*SHOWING[1:], ["on", "--message", "a word and " * 30, "--until", "2101-01-01"])
    assert ESCAPE not in done.stdout + done.stderr
    *_, shown, last = done.stdout.split("\0")
    assert (len(shown.splitlines()), last) == (1, "")


# Completion


@pytest.mark.parametrize(
    ("shell", "env"),
    [
        ("bash", {"COMP_WORDS": "fastapi-maintenance o", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "fastapi-maintenance o"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "fastapi-maintenance o", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shell_can_complete_it(shell: str, env: dict[str, str]) -> None:
    script = piped(["--show-completion", shell], _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"_FASTAPI_MAINTENANCE_COMPLETE=complete_{shell}" in script.stdout
    done = piped([], _FASTAPI_MAINTENANCE_COMPLETE=f"complete_{shell}", **env)
    found = re.findall(r'(?:^|(?<="))(on|off|edit|plan|status|run)(?=["\s]|$)', done.stdout, re.MULTILINE)
    assert set(found) == {"on", "off"}
