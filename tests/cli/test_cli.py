"""The command: what it does, what it prints, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import Hold, LocalFileBackend, MaintenanceState, __version__, cli, set_maintenance_mode
from fastapi_maintenance.cli import commands
from fastapi_maintenance.cli.show import show
from fastapi_maintenance.cli.switch import without_password
from fastapi_maintenance.testing import moved_clock
from tests.cli.helpers import ME, command, errors, process, state, store, switch, write
from tests.stores import BareSwitch, DetailedStore

BARE = ["--app", "shop:app"]
"""The switch of the fixture `bare`."""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> BareSwitch:
    """Let any app have a switch that keeps a boolean alone."""
    backend = BareSwitch()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)
    return backend


def test_on_and_off_set_the_switch_and_print_it() -> None:
    result = switch("on", "--message", "Back [at] ten")
    assert (result.exit_code, result.stdout) == (0, f"on by {ME}: Back [at] ten\n")
    assert state() == MaintenanceState(active=True, message="Back [at] ten")
    result = switch("off")
    assert (result.exit_code, result.stdout, state()) == (0, f"off by {ME}\n", MaintenanceState())


def test_on_for_a_duration_ends_then() -> None:
    before = datetime.now(UTC)
    result = switch("on", "--for", "1h30m")
    ends_at = state().ends_at
    assert ends_at is not None
    assert timedelta(minutes=90) <= ends_at - before < timedelta(minutes=91)
    assert re.search(r"  until 20.*UTC\), for (1h30m|1h29m5\ds)$", result.stdout.rstrip())


def test_on_from_a_time_begins_then() -> None:
    result = switch("on", "--from", "2101-01-01T10:00Z", "--until", "2101-01-01T12:00+01:00")
    tenth = datetime(2101, 1, 1, 10, tzinfo=UTC)
    window = MaintenanceState(active=True, starts_at=tenth, ends_at=tenth + timedelta(hours=1))
    assert state() == window
    assert result.stdout.startswith("off  on from 2101-01-01")
    result = switch("on", "--from", "2101-01-01T10:00Z", "--for", "5m")
    assert state().ends_at == tenth + timedelta(minutes=5)
    assert result.stdout.endswith(", for 5m\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["on", "--for", "soon"], "error: --for: 'soon' is no duration above zero, such as 90s"),
        (["on", "--for", "9999999d"], "error: --for: '9999999d' ends after the year 9999"),
        (["on", "--until", "25:00"], "error: --until: '25:00' is no time such as 22:00"),
        (["on", "--from", "x"], "error: --from: 'x' is no time"),
        (["on", "--for", "1h", "--until", "22:00"], "error: --for and --until say the same"),
        (["on", "--until", "2001-01-01"], "error: --until must be in the future"),
        (["on", "--from", "2101-01-02", "--until", "2101-01-01"], "error: --until must be after --from"),
        (["on", "-m", "x" * 5_000], "error: message must be at most 4096 characters long, got 5000\n"),
        (["on", "--drain", "soon"], "error: --drain: 'soon' is no duration above zero, such as 90s"),
        (["on", "--drain", "9s", "--from", "2101-01-01"], "error: --drain waits for requests that are blocked now"),
        (["run", "--drain", "0s", "--", "true"], "error: --drain: '0s' is no duration"),
        (["run", "--lease", "0s", "--", "true"], "error: --lease: '0s' is no duration"),
    ],
)
def test_invalid_option_prints_one_line_and_changes_nothing(words: list[str], text: str) -> None:
    result = switch(*words)
    assert (result.exit_code, len(errors(result).splitlines()), Path("switch").exists()) == (2, 1, False)
    assert errors(result).startswith(text)


@pytest.mark.parametrize("words", [["on"], ["watch"], ["run", "--", "touch", "ran"]])
@pytest.mark.parametrize(
    ("url", "text", "status"),
    [
        ("reddis://host", "error: backend must begin with one of env: file:", 2),
        ("file:no/such/folder/switch", "error: the store cannot be reached: FileNotFoundError", 1),
        ("redis://127.0.0.1:1", "error: the store cannot be reached: ConnectionError", 1),
        (
            "env:CLOSED",
            "error: .*the environment variable CLOSED cannot be switched at run time|it can only be read",
            1,
        ),
    ],
)
def test_unusable_switch_prints_one_line_and_runs_nothing(words: list[str], url: str, text: str, status: int) -> None:
    if words == ["watch"] and url.startswith(("env", "file")):
        return  # which can be read
    result = command(words[0], "--backend", url, *words[1:])
    assert (result.exit_code, result.stdout, Path("ran").exists()) == (status, "", False)
    assert re.search(text, errors(result)), errors(result)
    assert len(errors(result).splitlines()) == 1


def test_status_is_for_people_programs_and_scripts() -> None:
    assert (switch("status", "--exit-code").exit_code, switch("status").stdout) == (0, "off\n")
    switch("on", "--message", "why", "--until", "2101-01-01T00:00Z")
    told = switch("status", "--json", "--exit-code")
    assert told.exit_code == 3
    assert {name: value for name, value in json.loads(told.stdout).items() if name != "since"} == {
        "active_now": True,
        "message": "why",
        "active": True,
        "starts_at": None,
        "ends_at": "2101-01-01T00:00:00+00:00",
        "holds": [],
        "by": ME,
        "workers": [],
        "switch": "file:switch",
    }
    assert switch("status").exit_code == 0


def test_message_is_printed_as_it_is_on_one_line() -> None:
    text = "Back :smile:\n\x1b[2J at [bold]ten"
    shown = "Back :smile: [2J at [bold]ten"
    assert switch("on", "-m", text, "--by", text).stdout == f"on by {shown}: {shown}\n"


@pytest.mark.parametrize("words", [["on", "-m", "a word and " * 30, "--for", "30m"], ["status"], ["onn"], ["--help"]])
def test_output_in_a_pipe_has_no_escape_code(words: list[str]) -> None:
    result = command(*words, FASTAPI_MAINTENANCE_BACKEND="file:switch")
    assert ("\x1b" in result.output, bool(result.output)) == (False, True)
    assert words[0] != "on" or len(result.stdout.splitlines()) == 1


def test_output_in_a_pipe_has_colour_if_it_is_forced() -> None:
    assert "\x1b[" in command("status", "--backend", "file:switch", FORCE_COLOR="1", TERM="xterm").stdout
    dumb = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}
    assert command("status", "--backend", "file:switch", **dumb).stdout == "off\n"


# Who and when


SINCE = datetime(2030, 1, 1, 20, tzinfo=UTC)


def status_at(moment: datetime, **facts: Any) -> str:  # noqa: ANN401 -- those of the state
    """Return what status prints then of a switch that was set at `SINCE`."""
    write(MaintenanceState(**{"since": SINCE, "by": "alice@host", **facts}))
    with moved_clock() as clock:
        clock.move_to(moment)
        return switch("status").stdout


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"active": True, "message": "Back at ten"}, "on for 2 h by alice@host: Back at ten"),
        ({"active": True}, "on for 2 h by alice@host"),
        ({"active": True, "by": None, "since": None, "message": "Back at ten"}, "on: Back at ten"),
        ({"active": True, "by": None}, "on for 2 h"),
        ({"active": True, "starts_at": SINCE + timedelta(hours=1, minutes=11)}, "on for 49 min by alice@host"),
        ({"active": True, "since": SINCE + timedelta(hours=9)}, "on by alice@host"),
        ({}, "off for 2 h by alice@host"),
        ({"active": True, "ends_at": SINCE + timedelta(hours=1)}, "off"),
        (
            {"active": True, "holds": [Hold(id="1", active=True, by="job@web", since=SINCE + timedelta(hours=2))]},
            "on for 30 s by job@web  held by 1 running job (1)",
        ),
        (
            {"active": True, "message": "why", "holds": [Hold(id="1", active=False, by="job", since=SINCE)]},
            "off for 2 h by job  held by 1 running job (1)",
        ),
    ],
)
def test_status_says_for_how_long_by_whom_and_why(facts: dict[str, Any], text: str) -> None:
    told = status_at(SINCE + timedelta(hours=2, seconds=30), **facts)
    assert re.sub(r"\b3\d s\b", "30 s", told) == f"{text}\n"  # the clock goes on


def test_status_says_who_planned_a_window() -> None:
    window = {"active": True, "message": "Back at ten", "starts_at": SINCE + timedelta(hours=3)}
    told = status_at(SINCE + timedelta(hours=2), **window)
    assert told.startswith("off  on from 2030-01-01")
    assert re.search(r"\), in (1h|59m5\ds) by alice@host: Back at ten\n$", told)


@pytest.mark.parametrize("words", [["on"], ["off"], ["on", "--drain", "9s"]])
@pytest.mark.parametrize(("by", "told"), [([], ME), (["--by", "the night shift"], "the night shift")])
def test_on_and_off_keep_who_and_when(words: list[str], by: list[str], told: str) -> None:
    before = datetime.now(UTC)
    assert switch(*words, *by).exit_code == 0
    kept = LocalFileBackend("switch").peek()
    assert kept.since is not None
    assert before <= kept.since <= datetime.now(UTC)
    facts = json.loads(switch("status", "--json").stdout)
    assert (facts["by"], kept.by, datetime.fromisoformat(facts["since"])) == (told, told, kept.since)


@pytest.mark.parametrize(("by", "told"), [([], ME), (["--by", "the pipeline"], "the pipeline")])
def test_run_keeps_who_and_when_in_its_hold(by: list[str], told: str) -> None:
    switch("on", "-m", "until Monday", "--by", "bob")
    assert switch("run", "-m", "a new index", *by, "--", "cp", "switch", "kept").exit_code == 0
    assert json.loads(switch("status", "--json").stdout)["by"] == "bob"
    Path("kept").replace("switch")  # as it was while the command ran
    facts = json.loads(switch("status", "--json").stdout)
    (hold,) = facts["holds"]
    assert (facts["message"], facts["by"], facts["since"]) == ("a new index", told, hold["since"])
    assert hold["by"] == told
    assert datetime.fromisoformat(hold["since"]) <= datetime.now(UTC)
    assert f" by {told}: a new index  held by 1 running job ({hold['id'][:8]})\n" in switch("status").stdout


@pytest.mark.parametrize("error", [OSError, KeyError, ImportError])
def test_on_by_a_user_without_name_keeps_the_host(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("getpass.getuser", fail)
    assert switch("on").stdout == f"on by {socket.gethostname()}\n"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["on", "--by", "alice"], "by"),
        (["off", "--by", "alice"], "by"),
        (["run", "--by", "alice", "--", "touch", "ran"], "by"),
        (["run", "--lease", "30s", "--", "touch", "ran"], "lease"),
    ],
)
def test_bare_switch_refuses_what_it_cannot_keep(words: list[str], name: str, bare: BareSwitch) -> None:
    refused = command(words[0], *BARE, *words[1:])
    text = f"error: {name} needs a backend with the method update_state(change), which {bare!r} has not\n"
    assert (refused.exit_code, errors(refused), Path("ran").exists()) == (1, text, False)
    without = [word for word in words if word not in {"--by", "alice", "--lease", "30s"}]
    assert command(without[0], *BARE, *without[1:]).exit_code == 0
    assert anyio.run(bare.get_value) == (words[0] == "on")


# Holds of jobs that died


def hold(*ids: str) -> None:
    """Let jobs of these ids die while they hold the switch on."""
    write(MaintenanceState(holds=tuple(Hold(id=one, active=True) for one in ids)))


def test_status_shows_ids_as_short_as_they_differ() -> None:
    hold("c0ffee0123456789", "decade0123456789")
    assert switch("status").stdout == "on  held by 2 running jobs (c0ffee01, decade01)\n"
    told = json.loads(switch("status", "--json").stdout)["holds"]
    assert [one["id"] for one in told] == ["c0ffee0123456789", "decade0123456789"]
    hold("deploy of shop", "deploy of [bold]stock\x1b[2J")
    assert "(deploy of shop, deploy of [bold]stock [2J)\n" in switch("status").stdout


@pytest.mark.parametrize("name", ["c0ffee0123456789", "c0ffee", "c0ffee01"])
def test_release_by_an_id_or_its_beginning_removes_the_hold(name: str) -> None:
    hold("c0ffee0123456789", "c0ff")
    result = switch("release", name)
    assert (result.exit_code, result.stdout) == (0, "on  held by 1 running job (c0ff)\n")
    assert (switch("release", "c0ff").exit_code, switch("status").stdout) == (0, "off\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c0ffe", "no hold has the id 'c0ffe'"),
        ("c0ffee02", "no hold has the id 'c0ffee02'"),
        ("c0ffee", "2 holds have ids that begin with 'c0ffee'"),
        ("", "no hold has the id ''"),
    ],
)
def test_release_of_an_unknown_or_ambiguous_id_removes_nothing(name: str, text: str) -> None:
    hold("c0ffee0123456789", "c0ffee1")
    result = switch("release", name)
    assert (result.exit_code, errors(result), len(state().holds)) == (1, f"error: {text}\n", 2)


def test_release_of_a_whole_id_that_another_begins_with_removes_that_one() -> None:
    hold("deploy-2", "deploy")
    assert switch("release", "deploy").stdout == "on  held by 1 running job (deploy-2)\n"


def test_release_on_a_switch_without_holds_is_refused() -> None:
    result = command("release", "any", "--backend", "env:CLOSED")
    assert (result.exit_code, "cannot be switched at run time" in errors(result)) == (1, True)


# Which switch?


APP = """
from fastapi import FastAPI
from fastapi_maintenance import LocalFileBackend, MaintenanceModeMiddleware, MemoryBackend, maintenance_middleware

plain = FastAPI()
app = FastAPI()
app.add_middleware(maintenance_middleware(backend=LocalFileBackend("of_the_app")))
by_class = FastAPI()
by_class.add_middleware(MaintenanceModeMiddleware, backend="file:of_the_class")
in_memory = FastAPI()
in_memory.add_middleware(maintenance_middleware(backend=MemoryBackend()))
by_default = FastAPI()
by_default.add_middleware(maintenance_middleware())
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Write a module with apps, of a name of its own."""
    name = f"shop_{abs(hash(request.node.name))}"
    Path(f"{name}.py").write_text(APP)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_switch_is_that_of_an_option_else_the_variable_else_the_app(module: str) -> None:
    Path("pyproject.toml").write_text(f'[tool.fastapi]\nentrypoint = "{module}:app"\n')
    variable = {"FASTAPI_MAINTENANCE_BACKEND": "file:of_the_variable"}
    assert command("on", "--backend", "file:of_the_option", "--app", f"{module}:by_class", **variable).exit_code == 0
    assert command("on", "--app", f"{module}:by_class", **variable).exit_code == 0
    assert sorted(path.name for path in Path().glob("of_the_*[!k]")) == ["of_the_class", "of_the_option"]
    assert command("on", **variable).exit_code == 0
    assert Path("of_the_variable").exists()
    assert command("on").exit_code == 0
    assert Path("of_the_app").exists()


@pytest.mark.parametrize(
    ("attribute", "status", "text"),
    [
        ("plain", 2, "is no app with a maintenance middleware"),
        ("nothing", 2, "cannot be imported: AttributeError"),
        ("APP", 2, "cannot be imported"),
        ("in_memory", 2, "is in the memory of its own process: give it a store"),
        ("by_default", 1, "the environment variable FASTAPI_MAINTENANCE_MODE cannot be switched at run time"),
    ],
)
def test_app_without_a_switch_for_others_is_refused(module: str, attribute: str, status: int, text: str) -> None:
    result = command("on", "--app", f"{module}:{attribute}")
    assert (result.exit_code, len(errors(result).splitlines())) == (status, 1)
    assert text in errors(result)


@pytest.mark.parametrize(
    ("words", "project", "text"),
    [
        (["--app", "shop"], None, "--app must be of the form module:attribute, got 'shop'"),
        (["--app", "no_such_module:app"], None, "cannot be imported: ModuleNotFoundError"),
        ([], None, "no switch is named: give --backend URL or --app module:attribute"),
        ([], "[tool.fastapi]\n", "no switch is named"),
        ([], "no toml", "no switch is named"),
        (["--backend", "memory:"], None, "the switch memory: is in the memory of its own process"),
    ],
)
def test_missing_switch_is_refused_with_what_to_do(words: list[str], project: str | None, text: str) -> None:
    if project is not None:
        Path("pyproject.toml").write_text(project)
    result = command("status", *words)
    assert (result.exit_code, text in errors(result)) == (2, True)


@pytest.mark.parametrize(
    "words", [["{0}", "{1}", "status"], ["status", "{0}", "{1}"], ["{0}", "{1}", "status", "{0}", "{1}"]]
)
def test_switch_may_be_named_before_and_after_the_subcommand(module: str, words: list[str]) -> None:
    for option, value in (("--backend", "file:of_the_option"), ("--app", f"{module}:app")):
        given = [word.format(option, value) for word in words]
        result = command(*given, FASTAPI_MAINTENANCE_BACKEND="file:of_the_variable")
        name = {"--backend": value, "--app": f"LocalFileBackend('of_the_app') of {value}"}[option]
        assert (result.exit_code, result.stdout, result.stderr) == (0, "off\n", f"switch: {name}\n")


@pytest.mark.parametrize(("option", "value"), [("--backend", "redis://:secret@host"), ("--app", "shop:app")])
def test_two_values_of_one_option_are_refused_and_not_printed(option: str, value: str) -> None:
    result = command(option, value, "off", option, "file:switch")
    text = f"error: {option} has different values before and after the subcommand; give it once\n"
    assert (result.exit_code, result.stderr) == (2, text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["on"], "switch: file:switch\n"),
        (["off"], "switch: file:switch\n"),
        (["status"], "switch: file:switch\n"),
        (["status", "--json"], ""),
        (["run", "--", "true"], "switch: file:switch\n"),
        (["release", "none"], "switch: file:switch\nerror: no hold has the id 'none'\n"),
    ],
)
def test_subcommand_names_its_switch_on_standard_error(words: list[str], said: str) -> None:
    assert switch(*words).stderr == said


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("env:NAME", "env:NAME"),
        ("file:///at/home@ten.txt", "file:///at/home@ten.txt"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://me:secret@host", "rediss://host"),
        ("redis://host?password=secret&key=shop", "redis://host?key=shop"),
        ("redis://host?key=a&key=b", "redis://host?key=b"),
        ("postgresql+asyncpg://me:s?ec@ret/s@host/shop?ssl=secret", "postgresql+asyncpg://host/shop"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_name_of_a_switch_has_no_password(url: str, name: str) -> None:
    assert without_password(url) == name


# The command itself


def test_main_runs_what_the_package_installs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastapi-maintenance", "status", "--backend", "file:switch"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert (ended.value.code, capsys.readouterr().out) == (0, "off\n")


def test_main_leaves_signals_ignored_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = {signal.SIGHUP: signal.SIG_IGN}
    handled: list[int] = []
    monkeypatch.setattr(commands, "app", lambda: None)
    monkeypatch.setattr(signal, "getsignal", lambda number: ignored.get(number, signal.SIG_DFL))
    monkeypatch.setattr(signal, "signal", lambda number, _: handled.append(number))
    commands.main()
    assert handled == [signal.SIGTERM]
    ignored.clear()
    commands.main()
    assert handled == [signal.SIGTERM, signal.SIGTERM, signal.SIGHUP]


def test_main_without_typer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.cli.commands")
    needs = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    with pytest.raises(ImportError, match=re.escape(needs)):
        __import__("fastapi_maintenance.cli.commands")
    with pytest.raises(SystemExit, match=re.escape(f"error: {needs}")):
        cli.main()


def test_version_is_printed() -> None:
    result = command("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_store_with_an_invalid_state_is_no_wrong_usage() -> None:
    Path("switch").write_text("garbage", encoding="utf-8")
    result = switch("status")
    assert result.exit_code == 1
    assert "the store holds what is no state, which `on` and `off` replace: value must be" in errors(result)
    assert switch("on").exit_code == 0


# Watching


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that presses Ctrl-C after a watch has looked again and again."""
    monkeypatch.setattr("fastapi_maintenance._switch.changes._POLL", 0.01)
    return lambda: threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("url", ["file:switch", "sqlite+aiosqlite:///switch.db", "env:CLOSED"])
def test_watch_prints_nothing_until_something_changes(
    url: str, interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[MaintenanceState] = []

    def show(state: MaintenanceState, *, stamp: bool) -> None:
        assert stamp
        shown.append(state)
        interrupted()

    monkeypatch.setattr("fastapi_maintenance.cli.commands.show", show)
    assert (command("watch", "--backend", url).exit_code, len(shown)) == (130, 1)


def test_watch_prints_one_line_if_the_store_fails(
    interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DetailedStore()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)

    def show_and_go_down(state: MaintenanceState, *, stamp: bool) -> None:
        show(state, stamp=stamp)
        backend.go_down()

    noting = logging.Handler()
    noting.emit = lambda record: interrupted()  # type: ignore[method-assign]  # noqa: ARG005 -- its name
    logging.getLogger("fastapi_maintenance").addHandler(noting)
    monkeypatch.setattr("fastapi_maintenance.cli.commands.show", show_and_go_down)
    result = command("watch", *BARE)
    assert (result.exit_code, len(result.stdout.splitlines())) == (130, 1)
    (line,) = errors(result).splitlines()
    assert line.startswith("fastapi-maintenance: The maintenance state cannot be read from ")


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["file", "redis"])
def test_watch_prints_each_change(kind: str) -> None:
    with store(kind) as url:
        env = {"FASTAPI_MAINTENANCE_BACKEND": url, "PYTHONUNBUFFERED": "1"}
        with process("watch", env=env, stdout=subprocess.PIPE) as started:
            assert started.stdout is not None
            lines = [started.stdout.readline()]
            for active in (True, False):
                anyio.run(partial(set_maintenance_mode, active, url, by="alice"))
                lines.append(started.stdout.readline())
            started.send_signal(signal.SIGINT)
            assert started.wait(timeout=60) == 130
    assert [line[10:].strip() for line in lines] == ["off", "on by alice", "off by alice"]
