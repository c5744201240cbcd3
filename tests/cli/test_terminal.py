"""The command as it is seen in a terminal, a wide one and a narrow one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, set_maintenance_mode
from fastapi_maintenance.state import MaintenanceState, Switch

pytest.importorskip("termios", reason="a terminal of another kind")

from tests.cli.driving import state, write
from tests.cli.terminal import COMMAND, Terminal, piped, terminal
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


def seen(columns: int, *words: str, status: int = 0, **env: str) -> str:
    """Run the command to its end in a terminal, and return what stands on the screen of its own."""
    with terminal(columns, *words, **env) as shown:
        assert shown.ended() == status, shown.screen
        assert "Traceback" not in shown.screen
        assert "…" not in shown.screen
        assert "\ufffd" not in shown.screen
        return own(shown.screen)


def words_of(screen: str) -> list[str]:
    """Return the words on a screen, without the frames around them."""
    return re.sub(r"[─│╭╮╰╯]", " ", screen).split()


def reads(screen: str) -> str:
    """Return what is read on a screen: its words, wherever a line ends."""
    return " ".join(words_of(screen))


# Help


@pytest.mark.parametrize(
    "name", ["", "on", "off", "edit", "plan", "cancel", "status", "workers", "routes", "watch", "run", "release"]
)
def test_help_has_each_option_and_each_word_whole(name: str) -> None:
    words = [*name.split(), "--help"]
    widest, *others = [[word.strip(",:[]") for word in words_of(seen(columns, *words))] for columns in (250, 120, 40)]
    options = [word for word in widest if word.startswith("-")]
    sentences = {word for word in widest if re.fullmatch(r"[a-zA-Z_.,:/-]+", word)}  # not the types that a table has
    assert options
    assert len(sentences) > 15
    for narrower in others:
        assert sorted(options) == sorted(word for word in narrower if word.startswith("-"))
        assert sentences - set(narrower) == set()


def test_command_without_a_word_shows_the_help(columns: int) -> None:
    assert reads(seen(columns, "--help")) == reads(seen(columns, status=2))


# What is shown


def test_on_shows_the_end_in_the_operators_zone_and_in_utc(columns: int) -> None:
    before = datetime.now(UTC)
    told = reads(seen(columns, "on", "--message", "New database, back at ten", "--for", "30m"))
    shown = re.fullmatch(
        r"on(?: for \d+ s)?: New database, back at ten until (\S+ \S+) JST \((?:\S+ )?(\S+) UTC\), for (30m|29m5\ds)",
        told,
    )
    assert shown, told
    in_tokyo = datetime.fromisoformat(shown[1]).replace(tzinfo=timezone(timedelta(hours=9)))
    assert timedelta(minutes=29, seconds=58) < in_tokyo - before < timedelta(minutes=31)
    assert shown[2] == f"{in_tokyo.astimezone(UTC):%H:%M:%S}"
    lasting, again = (re.sub(r"^on for \d+ s|\S+$", "", text) for text in (told, reads(seen(columns, "status"))))
    assert lasting.removeprefix("on") == again.removeprefix("on")


def test_planned_window_is_shown_whole(columns: int) -> None:
    plan = ["plan", "--from", "2101-01-01T20:00Z", "--until", "2101-01-01T22:00Z", "-m", "New database", "--by", "bob"]
    window = (
        r"planned [0-9a-f]{8} by bob: New database from 2101-01-02 05:00:00 JST \(2101-01-01 20:00:00 UTC\), in \w+ "
        r"until 2101-01-02 07:00:00 JST \(2101-01-01 22:00:00 UTC\), for 2h"
    )
    for words, text in ((plan, window), (["status"], f"off {window}")):
        shown = reads(seen(columns, *words))
        assert re.fullmatch(text, shown), shown


def test_status_has_a_line_for_each_fact_if_not_all_fit_on_one() -> None:
    seen(120, "on", "--message", "New database", "--until", "2101-01-01T12:00Z", "--by", "alice")
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database  until .+ UTC\), for \w+", seen(120, "status"))
    first, second = [line.rstrip() for line in seen(40, "status").splitlines()][:2]
    assert re.fullmatch(r"on( for \d+ s)? by alice: New database", first)
    assert second.startswith("until 2101-01-01 21:00:00 JST")


def test_message_cannot_change_what_else_is_seen(columns: int) -> None:
    write(MaintenanceState(switch=Switch(on=True, message="[red]Back[/]\n:smile: \x1b[2J\x1b[1;1Hopen\x07")))
    assert reads(seen(columns, "status")) == "on: [red]Back[/] :smile: [2J [1;1Hopen"


def test_run_leaves_the_output_of_its_command_alone(columns: int) -> None:
    assert not seen(columns, "run", "--", "true")
    told = reads(seen(columns, "run", "--message", "Deploying", "--", str(COMMAND), "status"))
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


def test_drain_shows_the_requests_it_waits_for(columns: int) -> None:
    with busy_server(), terminal(columns, "run", "--drain", "6s", "--", "touch", "ran") as shown:
        waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
        shown.read_until(lambda screen: waiting in reads(screen) and "; 1 s left" in reads(screen))
        assert shown.ended() == 75
        assert re.fullmatch(
            r"error: requests are not drained after 6 s: process \d+ on \S+ has 1 request in progress, "
            r"POST /orders/\{number\} for \d+ s the hold was given back, and the command was not started",
            reads(own(shown.screen)),
        )
        assert not Path("ran").exists()


def test_ctrl_c_in_a_drain_says_that_the_hold_was_given_back(columns: int) -> None:
    with busy_server(), terminal(columns, "run", "--drain", "60s", "--", "touch", "ran") as shown:
        shown.read_until(lambda screen: "waiting for 1 request" in reads(screen))
        shown.press(b"\x03")
        assert shown.ended() == 130
        assert reads(own(shown.screen)) == "interrupted; the hold was given back, and the command was not started"
        assert (state(), Path("ran").exists()) == (MaintenanceState(), False)


# What is wrong


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["onn"], 2, "No such command 'onn'. Did you mean 'on'?"),
        (["run"], 2, "Missing argument 'COMMAND'."),
        (
            ["on", "--for", "soon"],
            2,
            "error: --for: 'soon' is not a duration above zero, such as 90s, 30m, 2h, 1d or 1h30m",
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
        (
            ["run", "--", "no-such-command"],
            127,
            "no-such-command: No such file or directory; maintenance was not turned on",
        ),
    ],
)
def test_error_is_short_and_whole(words: list[str], status: int, text: str, columns: int) -> None:
    screen = seen(columns, *words, status=status)
    assert text in reads(screen)
    assert len(screen.splitlines()) <= (8 if columns < 80 else 5)


def test_missing_switch_is_shown_with_what_to_do(columns: int) -> None:
    screen = seen(columns, "status", status=2, FASTAPI_MAINTENANCE_BACKEND="")
    assert reads(screen) == (
        "error: no backend given: give --backend URL or --app module:attribute, set FASTAPI_MAINTENANCE_BACKEND, "
        "or have an entrypoint under [tool.fastapi] in pyproject.toml"
    )


# Colour


def colours(shown: Terminal) -> list[str]:
    """Return the parameters of the escape codes that set a colour: those of 30 to 37."""
    codes = re.findall(r"\x1b\[([\d;]*)m", shown.written.decode())
    return [code for code in codes if re.search(r"\b3[0-7]\b", code)]


@pytest.mark.parametrize("words", [["on"], ["off"], ["status"], ["on", "--for", "soon"], ["onn"], ["--help"]])
def test_terminal_gets_colour_unless_it_is_unwanted(words: list[str]) -> None:
    with terminal(120, *words) as coloured, terminal(120, *words, NO_COLOR="1") as plain:
        assert coloured.ended() == plain.ended()
        assert coloured.screen == plain.screen
        assert colours(coloured)
        assert colours(plain) == []


@pytest.mark.parametrize("words", [["on", "--for", "30m"], ["status"], ["on", "--for", "soon"], ["onn"], ["--help"]])
def test_pipe_gets_no_escape_code(words: list[str]) -> None:
    done = piped(*words)
    assert done.stdout + done.stderr
    assert ESCAPE not in done.stdout + done.stderr


def test_pipe_gets_one_line_however_long() -> None:
    done = piped("on", "--message", "a word and " * 30, "--until", "2101-01-01")
    assert len(done.stdout.splitlines()) == 1


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
    chosen = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = piped("--show-completion", shell, **chosen)
    assert (script.returncode, f"_FASTAPI_MAINTENANCE_COMPLETE=complete_{shell}" in script.stdout) == (0, True)
    done = piped(_FASTAPI_MAINTENANCE_COMPLETE=f"complete_{shell}", **env)
    found = re.findall(r'(?:^|(?<="))(on|off|edit|plan|status|run)(?=["\s]|$)', done.stdout, re.MULTILINE)
    assert set(found) == {"on", "off"}
