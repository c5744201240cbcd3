"""The command as it is seen in a terminal, a wide one and a narrow one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import Hold, LocalFileBackend, MaintenanceState, set_maintenance_mode

pytest.importorskip("termios", reason="a terminal of another kind")

from tests.cli.helpers import ME, command, write
from tests.cli.terminal import COMMAND, seen, shown_on, terminal, written
from tests.cli.test_drain import busy_server


@pytest.fixture(params=[120, 40])
def columns(request: pytest.FixtureRequest) -> int:
    """Return a width of the terminal."""
    return int(request.param)


def words_of(screen: str) -> list[str]:
    """Return the words on a screen, without the frames around them."""
    return re.sub(r"[─│╭╮╰╯]", " ", screen).split()


def reads(screen: str) -> str:
    """Return what is read on a screen: its words, wherever a line ends."""
    return " ".join(words_of(screen))


# Help


@pytest.mark.parametrize("name", ["", "on", "off", "status", "watch", "run", "release"])
def test_help_has_each_option_and_each_word_whole(name: str) -> None:
    words = [*name.split(), "--help"]
    widest, *others = [[word.strip(",:[]") for word in words_of(seen(columns, *words))] for columns in (250, 120, 40)]
    options = [word for word in widest if word.startswith("-")]
    sentences = {word for word in widest if re.fullmatch(r"[a-zA-Z_.,:/-]+", word)}  # not the types that a table has
    assert options
    assert len(sentences) > 15
    for narrower in others:
        assert sorted(word for word in narrower if word.startswith("-")) == sorted(options)
        assert sentences - set(narrower) == set()


def test_help_is_a_table_where_there_is_room() -> None:
    wide, narrow = (seen(columns, "--help") for columns in (80, 79))
    assert ("╭─ Commands" in wide, "╭─ Commands" in narrow) == (True, False)
    assert "\n  watch    Print each change as it happens, until you press Ctrl-C.\n" in narrow
    assert "--backend URL\n" in seen(40, "on", "--help")


def test_no_command_shows_the_help(columns: int) -> None:
    assert reads(seen(columns, status=2)) == reads(seen(columns, "--help"))


# The state


def test_on_for_a_duration_shows_its_end_in_the_operators_zone_and_in_utc(columns: int) -> None:
    before = datetime.now(UTC)
    told = reads(seen(columns, "on", "--message", "New database, back at ten", "--for", "30m"))
    shown = re.fullmatch(
        rf"on(?: for \d+ s)? by {ME}: New database, back at ten "
        r"until (\S+ \S+) JST \((?:\S+ )?(\S+) UTC\), for (30m|29m5\ds)",
        told,
    )
    assert shown, told
    in_tokyo = datetime.fromisoformat(shown[1]).replace(tzinfo=timezone(timedelta(hours=9)))
    assert timedelta(minutes=29, seconds=58) < in_tokyo - before < timedelta(minutes=31)
    assert shown[2] == f"{in_tokyo.astimezone(UTC):%H:%M:%S}"
    lasting, again = (re.sub(r"^on for \d+ s|\S+$", "", text) for text in (told, reads(seen(columns, "status"))))
    assert again.removeprefix("on") == lasting.removeprefix("on")


def test_status_and_off_are_a_word_while_maintenance_is_off(columns: int) -> None:
    assert [seen(columns, "status"), reads(seen(columns, "off"))] == ["off", f"off by {ME}"]


def test_status_counts_the_jobs_that_hold_it(columns: int) -> None:
    holds = tuple(Hold(id=name * 32, active=True, message="Deployment of the shop") for name in ("a", "b"))
    write(MaintenanceState(holds=holds))
    assert reads(seen(columns, "status")) == ("on: Deployment of the shop held by 2 running jobs (aaaaaaaa, bbbbbbbb)")


def test_window_to_come_is_shown_whole(columns: int) -> None:
    told = reads(seen(columns, "on", "--from", "2101-01-01T20:00Z", "--until", "2101-01-01T22:00Z"))
    assert re.fullmatch(
        r"off on from 2101-01-02 05:00:00 JST \(2101-01-01 20:00:00 UTC\), in \w+ by alice@\S+ "
        r"until 2101-01-02 07:00:00 JST \(2101-01-01 22:00:00 UTC\), for \w+",
        told,
    ), told


def test_each_fact_has_a_line_if_not_all_fit_on_one() -> None:
    seen(120, "on", "--message", "New database", "--until", "2101-01-01T12:00Z", "--by", "alice")
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database  until .+ UTC\), for \w+", seen(120, "status"))
    first, second = [line.rstrip() for line in seen(40, "status").splitlines()][:2]
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database", first)
    assert second.startswith("until 2101-01-01 21:00:00 JST")


def test_message_cannot_change_what_else_is_seen(columns: int) -> None:
    write(MaintenanceState(active=True, message="[red]Back[/]\n:smile: \x1b[2J\x1b[1;1Hopen\x07"))
    assert reads(seen(columns, "status")) == "on: [red]Back[/] :smile: [2J [1;1Hopen"


# What is wrong


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["onn"], 2, "No such command 'onn'. Did you mean 'on'?"),
        (["run"], 2, "Missing argument 'COMMAND'."),
        (
            ["on", "--for", "soon"],
            2,
            "error: --for: 'soon' is no duration above zero, such as 90s, 30m, 2h, 1d or 1h30m",
        ),
        (
            ["status", "--backend", "reddis://host"],
            2,
            "error: backend must begin with one of env: file: memory: redis:",
        ),
        (
            ["on", "--backend", "env:CLOSED"],
            1,
            "error: the environment variable CLOSED cannot be switched at run time, because no other process",
        ),
        (["run", "--", "no-such-command"], 127, "no-such-command: No such file or directory"),
    ],
)
def test_error_is_short_and_whole(words: list[str], status: int, text: str, columns: int) -> None:
    screen = seen(columns, *words, status=status)
    assert text in reads(screen)
    assert len(screen.splitlines()) <= (8 if columns < 80 else 5)


def test_missing_switch_is_an_error_that_says_what_to_do(columns: int) -> None:
    assert reads(seen(columns, "status", status=2, FASTAPI_MAINTENANCE_BACKEND="")) == (
        "error: no switch is named: give --backend URL or --app module:attribute, set FASTAPI_MAINTENANCE_BACKEND, "
        "or have an entrypoint under [tool.fastapi] in pyproject.toml"
    )


# Colour


@pytest.mark.parametrize(
    ("words", "status"),
    [(["on"], 0), (["off"], 0), (["status"], 0), (["on", "--for", "soon"], 2), (["onn"], 2), (["--help"], 0)],
)
def test_terminal_has_colour_unless_it_is_unwanted(words: list[str], status: int) -> None:
    coloured, plain = written(120, *words, status=status), written(120, *words, status=status, NO_COLOR="1")
    assert shown_on(120, coloured.encode()) == shown_on(120, plain.encode())
    codes = [re.findall(r"\x1b\[(?:\d+;)*3[0-7](?:;\d+)*m", text) for text in (coloured, plain)]
    assert [bool(found) for found in codes] == [True, False]


# A terminal that is one


@pytest.mark.servers
def test_run_leaves_the_terminal_to_its_command() -> None:
    with terminal(40, "run", "--message", "Deploying", "--", str(COMMAND), "status") as shown:
        assert shown.ended() == 0
        told = rf"(switch: file:switch ){{2}}on( for \d+ s)? by {ME}: Deploying held by 1 running job \([0-9a-f]{{8}}\)"
        assert re.fullmatch(told, reads(shown.screen)), shown.screen


@pytest.mark.servers
def test_watch_shows_each_change_until_ctrl_c() -> None:
    with terminal(40, "watch") as shown:
        shown.read_until(lambda screen: screen.endswith("off"))
        anyio.run(partial(set_maintenance_mode, True, LocalFileBackend("switch"), by="bob"))
        shown.read_until(lambda screen: screen.endswith("on by bob"))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert re.fullmatch(r"switch: file:switch\n\d\d:\d\d:\d\d  off\n\d\d:\d\d:\d\d  on by bob\n\^C", shown.screen)
        assert shown.written.endswith(b"^C\r\n"), "the next prompt would stand behind the last line"


@pytest.mark.servers
def test_run_shows_the_requests_that_it_waits_for_until_time_runs_out() -> None:
    with busy_server(), terminal(40, "run", "--drain", "4s", "--", "touch", "ran") as shown:
        waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
        shown.read_until(lambda screen: waiting in reads(screen) and "; 1 s left" in reads(screen))
        assert (shown.ended(), Path("ran").exists(), Path("ended").exists()) == (75, False, False)
        assert LocalFileBackend("switch").peek() == MaintenanceState()
        assert re.fullmatch(
            r"switch: file:switch error: requests are not drained after 4 s: process \d+ on \S+ has 1 request in "
            r"progress, POST /orders/\{number\} for \d+ s",
            reads(shown.screen),
        )


# Completion


@pytest.mark.parametrize(
    ("shell", "env"),
    [
        ("bash", {"COMP_WORDS": "fastapi-maintenance o", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "fastapi-maintenance o"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "fastapi-maintenance o", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shell_completes_subcommands(shell: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    script = command("--show-completion", shell)
    assert (script.exit_code, f"_FASTAPI_MAINTENANCE_COMPLETE=complete_{shell}" in script.stdout) == (0, True)
    done = command(_FASTAPI_MAINTENANCE_COMPLETE=f"complete_{shell}", **env)
    assert set(re.findall(r"\b(on|off|status|watch|run)\b(?!\.)", done.stdout)) == {"on", "off"}
