"""The command, as a process and in this one: what it does, what it says, and how it ends."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typer.testing import CliRunner, Result

from fastapi_maintenance import (
    LocalFileBackend,
    MaintenanceState,
    __version__,
    cli,
    get_maintenance_state,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import holds
from fastapi_maintenance.cli import commands
from fastapi_maintenance.cli.commands import app
from fastapi_maintenance.cli.hold import run_command
from fastapi_maintenance.cli.show import show
from fastapi_maintenance.cli.switch import without_password
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold
from fastapi_maintenance.testing import moved_clock
from tests.servers import running
from tests.stores import BareSwitch, DetailedStore
from tests.support import ROOT

COMMAND = [sys.executable, "-c", "from fastapi_maintenance.cli import main; main()"]
ME = f"alice@{socket.gethostname()}"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there is no project, and nothing says which switch is meant."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "handlers", [])  # what `run` adds, for its process


def command(*words: str, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(words), env=env)


def switch(*words: str) -> Result:
    """Run the command on a file."""
    return command(*words[:1], "--backend", "file:switch", *words[1:])


def errors(result: Result) -> str:
    """Return what stands on standard error, below the line that names the switch where there is one."""
    return re.sub(r"\Aswitch: .*\n", "", result.stderr)


def state() -> MaintenanceState:
    """Return what the file says, but for who set it, and when."""
    return replace(LocalFileBackend("switch").peek(), by=None, since=None)


def test_it_is_switched_on_and_off() -> None:
    result = switch("on", "--message", "Back [at] ten")
    assert (0, f"on by {ME}: Back [at] ten\n") == (result.exit_code, result.stdout)
    assert MaintenanceState(active=True, message="Back [at] ten") == state()
    result = switch("off")
    assert (0, f"off by {ME}\n", MaintenanceState()) == (result.exit_code, result.stdout, state())


def test_it_is_switched_on_for_some_time() -> None:
    before = datetime.now(UTC)
    result = switch("on", "--for", "1h30m")
    ends_at = state().ends_at
    assert ends_at is not None
    assert timedelta(minutes=90) <= ends_at - before < timedelta(minutes=91)
    assert "  until 20" in result.stdout
    assert "UTC)" in result.stdout
    assert re.search(r" for (1h30m|1h29m5\ds)$", result.stdout.rstrip())


def test_it_is_switched_on_from_then_until_then() -> None:
    result = switch("on", "--from", "2101-01-01T10:00Z", "--until", "2101-01-01T12:00+01:00")
    tenth = datetime(2101, 1, 1, 10, tzinfo=UTC)
    assert (True, tenth, tenth + timedelta(hours=1)) == (state().active, state().starts_at, state().ends_at)
    assert result.stdout.startswith("off  on from 2101-01-01")
    switch("on", "--from", "2101-01-01T10:00Z", "--for", "2h")
    assert tenth + timedelta(hours=2) == state().ends_at


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
        (["run", "--lease", "0s", "--", "true"], "error: --lease: '0s' is no duration"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(words: list[str], text: str) -> None:
    result = switch(*words)
    assert 2 == result.exit_code
    assert errors(result).startswith(text)
    assert 1 == len(errors(result).splitlines())
    assert not Path("switch").exists()


@pytest.mark.parametrize(
    ("url", "text", "status"),
    [
        ("reddis://host", "error: backend must begin with one of env: file:", 2),
        ("file:no/such/folder/switch", "error: the store cannot be reached: FileNotFoundError", 1),
        ("redis://127.0.0.1:1", "error: the store cannot be reached: ConnectionError", 1),
        ("env:CLOSED", "error: the environment variable CLOSED cannot be switched at run time", 1),
    ],
)
def test_a_switch_that_cannot_be_set_is_one_line(url: str, text: str, status: int) -> None:
    result = command("on", "--backend", url)
    assert (status, True) == (result.exit_code, errors(result).startswith(text)), errors(result)
    assert 1 == len(errors(result).splitlines())


def test_the_status_is_for_people_programs_and_scripts() -> None:
    assert (0, "off\n") == (switch("status", "--exit-code").exit_code, switch("status").stdout)
    switch("on", "--message", "why", "--until", "2101-01-01T00:00Z")
    told = switch("status", "--json", "--exit-code")
    assert 3 == told.exit_code
    assert {
        "active_now": True,
        "message": "why",
        "active": True,
        "starts_at": None,
        "ends_at": "2101-01-01T00:00:00+00:00",
        "holds": [],
        "by": ME,
        "workers": [],
        "switch": "file:switch",
    } == {name: value for name, value in json.loads(told.stdout).items() if name != "since"}
    assert 0 == switch("status").exit_code


def test_a_message_is_shown_as_it_is_on_one_line() -> None:
    text = "Back :smile:\n\x1b[2J at [bold]ten"
    shown = "Back :smile: [2J at [bold]ten"
    assert f"on by {shown}: {shown}\n" == switch("on", "-m", text, "--by", text).stdout


def test_a_message_that_is_too_long_is_one_line() -> None:
    result = switch("on", "-m", "x" * 5_000)
    assert (2, "error: message must be at most 4096 characters long, got 5000\n") == (result.exit_code, errors(result))
    assert not Path("switch").exists()


# Who and when


SINCE = datetime(2030, 1, 1, 20, tzinfo=UTC)


def set_by(**facts: Any) -> None:  # noqa: ANN401 -- those of the state
    """Let somebody have set the switch at `SINCE`."""
    Path("switch").write_text(state_to_text(MaintenanceState(**{"since": SINCE, "by": "alice@host", **facts})))


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
def test_the_status_tells_for_how_long_by_whom_and_why(facts: dict[str, Any], text: str) -> None:
    set_by(**facts)
    with moved_clock() as clock:
        clock.move_to(SINCE + timedelta(hours=2, seconds=30))
        told = switch("status").stdout
    assert f"{text}\n" == re.sub(r"\b3\d s\b", "30 s", told)  # the clock goes on


def test_who_planned_a_window_is_told_with_it() -> None:
    set_by(active=True, message="Back at ten", starts_at=SINCE + timedelta(hours=3))
    with moved_clock() as clock:
        clock.move_to(SINCE + timedelta(hours=2))
        told = switch("status").stdout
    assert told.startswith("off  on from 2030-01-01")
    assert re.search(r"\), in (1h|59m5\ds) by alice@host: Back at ten\n$", told)


@pytest.mark.parametrize("words", [["on"], ["off"], ["on", "--drain", "9s"]])
@pytest.mark.parametrize(("by", "told"), [([], ME), (["--by", "the night shift"], "the night shift")])
def test_who_sets_the_switch_is_kept(words: list[str], by: list[str], told: str) -> None:
    before = datetime.now(UTC)
    assert 0 == switch(*words, *by).exit_code
    kept = LocalFileBackend("switch").peek()
    assert told == kept.by
    assert kept.since is not None
    assert before <= kept.since <= datetime.now(UTC)
    facts = json.loads(switch("status", "--json").stdout)
    assert (told, kept.since) == (facts["by"], datetime.fromisoformat(facts["since"]))


@pytest.mark.parametrize(("by", "told"), [([], ME), (["--by", "the pipeline"], "the pipeline")])
def test_who_runs_a_command_is_kept_in_its_hold(by: list[str], told: str) -> None:
    assert 0 == switch("run", *by, "--", "cp", "switch", "kept").exit_code
    Path("kept").replace("switch")
    (hold,) = json.loads(switch("status", "--json").stdout)["holds"]
    assert told == hold["by"]
    assert datetime.fromisoformat(hold["since"]) <= datetime.now(UTC)
    assert f" by {told}  held by 1 running job ({hold['id'][:8]})\n" in switch("status").stdout


def test_a_program_reads_who_keeps_maintenance_on_beside_the_message_that_counts() -> None:
    assert 0 == switch("on", "-m", "until Monday", "--by", "alice").exit_code
    assert 0 == switch("run", "-m", "a new index", "--by", "the pipeline", "--", "cp", "switch", "kept").exit_code
    assert "alice" == json.loads(switch("status", "--json").stdout)["by"]
    Path("kept").replace("switch")
    facts = json.loads(switch("status", "--json").stdout)
    since = facts["holds"][0]["since"]
    assert ("a new index", "the pipeline", since) == (facts["message"], facts["by"], facts["since"])


@pytest.mark.parametrize("error", [OSError, KeyError, ImportError])
def test_where_the_user_has_no_name_it_is_the_host(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("getpass.getuser", fail)
    assert f"on by {socket.gethostname()}\n" == switch("on").stdout


@pytest.mark.parametrize("words", [["on"], ["off"], ["run", "--", "touch", "ran"]])
def test_a_bare_switch_keeps_nobody_and_refuses_who_is_given(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)
    refused = command(words[0], "--by", "alice", "--app", "shop:app", *words[1:])
    text = f"error: by needs a backend with the method update_state(change), which {backend!r} has not\n"
    assert (1, text, False) == (refused.exit_code, errors(refused), Path("ran").exists())
    assert 0 == command(words[0], "--app", "shop:app", *words[1:]).exit_code
    assert (words[0] == "on") == anyio.run(backend.get_value)


def test_a_bare_switch_refuses_a_lease_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)
    refused = command("run", "--lease", "30s", "--app", "shop:app", "--", "touch", "ran")
    text = f"error: lease needs a backend with the method update_state(change), which {backend!r} has not\n"
    assert (1, text, False) == (refused.exit_code, errors(refused), Path("ran").exists())


# Holds of jobs that died


def hold(*ids: str) -> None:
    """Let jobs of these ids die while they hold the switch on."""
    Path("switch").write_text(state_to_text(MaintenanceState(holds=tuple(Hold(id=one, active=True) for one in ids))))


def test_the_ids_of_holds_are_shown_as_short_as_they_are_told_apart() -> None:
    hold("c0ffee0123456789", "decade0123456789")
    assert "on  held by 2 running jobs (c0ffee01, decade01)\n" == switch("status").stdout
    told = json.loads(switch("status", "--json").stdout)["holds"]
    assert ["c0ffee0123456789", "decade0123456789"] == [one["id"] for one in told]
    hold("deploy of shop", "deploy of [bold]stock\x1b[2J")
    assert "(deploy of shop, deploy of [bold]stock [2J)\n" in switch("status").stdout


@pytest.mark.parametrize("name", ["c0ffee0123456789", "c0ffee", "c0ffee01"])
def test_a_hold_is_taken_out_by_its_id_or_how_it_begins(name: str) -> None:
    hold("c0ffee0123456789", "c0ff")
    result = switch("release", name)
    assert (0, "on  held by 1 running job (c0ff)\n") == (result.exit_code, result.stdout)
    assert (0, "off\n") == (switch("release", "c0ff").exit_code, switch("status").stdout)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c0ffe", "no hold has the id 'c0ffe'"),
        ("c0ffee02", "no hold has the id 'c0ffee02'"),
        ("c0ffee", "2 holds have ids that begin with 'c0ffee'"),
        ("", "no hold has the id ''"),
    ],
)
def test_no_hold_is_taken_out_that_is_not_meant(name: str, text: str) -> None:
    hold("c0ffee0123456789", "c0ffee1")
    result = switch("release", name)
    assert (1, f"error: {text}\n", 2) == (result.exit_code, errors(result), held())


def test_a_hold_whose_whole_id_another_begins_with_can_be_taken_out() -> None:
    hold("deploy-2", "deploy")
    assert "on  held by 1 running job (deploy-2)\n" == switch("release", "deploy").stdout


def test_a_switch_that_keeps_no_holds_says_so() -> None:
    result = command("release", "any", "--backend", "env:CLOSED")
    assert (1, True) == (result.exit_code, "cannot be switched at run time" in errors(result))


def test_the_help_is_a_table_where_there_is_room() -> None:
    wide, narrow = (command("--help", COLUMNS=columns).stdout for columns in ("80", "79"))
    assert (True, False) == ("╭─ Commands" in wide, "╭─ Commands" in narrow)
    assert "\n  watch    Print each change as it happens, until you press Ctrl-C.\n" in narrow
    assert "--backend URL\n" in command("on", "--help", COLUMNS="40").stdout


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


def test_the_switch_is_that_of_an_option_else_the_variable_else_the_app(module: str) -> None:
    Path("pyproject.toml").write_text(f'[tool.fastapi]\nentrypoint = "{module}:app"\n')
    variable = {"FASTAPI_MAINTENANCE_BACKEND": "file:of_the_variable"}
    assert 0 == command("on", "--backend", "file:of_the_option", "--app", f"{module}:by_class", **variable).exit_code
    assert 0 == command("on", "--app", f"{module}:by_class", **variable).exit_code
    assert ["of_the_class", "of_the_option"] == sorted(path.name for path in Path().glob("of_the_*[!k]"))
    assert 0 == command("on", **variable).exit_code
    assert Path("of_the_variable").exists()
    assert 0 == command("on").exit_code
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
def test_an_app_that_has_no_switch_for_others_says_so(module: str, attribute: str, status: int, text: str) -> None:
    result = command("on", "--app", f"{module}:{attribute}")
    assert (status, 1) == (result.exit_code, len(errors(result).splitlines()))
    assert text in errors(result)


@pytest.mark.parametrize("words", [["--app", "{module}:by_default"], ["--backend", "env:SOME_VARIABLE"]])
def test_nothing_is_run_where_the_switch_can_only_be_read(module: str, words: list[str]) -> None:
    result = command("run", *(word.format(module=module) for word in words), "--", "touch", "ran")
    assert (1, False) == (result.exit_code, Path("ran").exists())
    assert "it can only be read" in errors(result)


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
def test_where_no_switch_is_named_it_says_what_to_do(words: list[str], project: str | None, text: str) -> None:
    if project is not None:
        Path("pyproject.toml").write_text(project)
    result = command("status", *words)
    assert 2 == result.exit_code
    assert text in errors(result)


# In this process, where each line is counted


def test_the_command_is_what_the_package_installs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastapi-maintenance", "status", "--backend", "file:switch"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert (0, "off\n") == (ended.value.code, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 3", 3), ("kill -TERM $PPID; exec sleep 60", 143), ("kill -INT $PPID; exec sleep 60", 130)],
)
def test_the_exit_status_and_the_signals_are_passed_on(script: str, status: int) -> None:
    assert status == switch("run", "--message", "why", "--", "sh", "-c", script).exit_code
    assert MaintenanceState() == state()


def test_what_is_not_there_cannot_be_run() -> None:
    result = switch("run", "--", "no-such-command")
    assert (127, "no-such-command: No such file or directory\n") == (result.exit_code, errors(result))


@pytest.mark.servers
def test_what_fails_while_the_command_runs_is_told_in_a_line() -> None:
    Path("folder").mkdir()
    noting = logging.Handler()
    noting.emit = lambda record: Path("again" if "again in" in record.msg else "failed").touch()  # type: ignore[method-assign]
    logging.getLogger("fastapi_maintenance").addHandler(noting)
    wait = "for _ in $(seq 600); do [ -e {0} ] && break; sleep 0.1; done"
    script = f"mv folder gone; {wait.format('failed')}; mv gone folder; {wait.format('again')}"
    result = command("run", "--backend", "file:folder/switch", "--lease", "1s", "--", "sh", "-c", script)
    assert 0 == result.exit_code
    assert "fastapi-maintenance: A hold could not be renewed in LocalFileBackend('folder/switch')" in errors(result)
    assert "fastapi-maintenance: A hold has been renewed again" in errors(result)
    assert "Traceback" not in errors(result)
    assert MaintenanceState() == LocalFileBackend("folder/switch").peek()


def test_what_a_terminal_sends_to_the_command_itself_is_not_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert 4 == anyio.run(run_command, ["sh", "-c", "kill -INT $PPID; sleep 0.5; exit 4"])


@pytest.mark.servers
@pytest.mark.parametrize("url", ["file:switch", "sqlite+aiosqlite:///switch.db", "env:CLOSED"])
def test_watching_ends_when_it_is_interrupted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))  # after it has looked a second time

    def show_and_start_timer(state: MaintenanceState, *, stamp: bool) -> None:
        show(state, stamp=stamp)
        timer.start()

    monkeypatch.setattr("fastapi_maintenance.cli.commands.show", show_and_start_timer)
    result = command("watch", "--backend", url)
    timer.join()
    assert 130 == result.exit_code
    assert ["off"] == [line.split()[1] for line in result.stdout.splitlines()]


def test_a_switch_that_cannot_be_read_cannot_be_watched() -> None:
    result = command("watch", "--backend", "redis://127.0.0.1:1")
    assert (1, "") == (result.exit_code, result.stdout)
    assert errors(result).startswith("error: the store cannot be reached: ConnectionError")


@pytest.mark.servers
def test_a_store_that_goes_away_while_it_is_watched_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DetailedStore()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)
    timer = threading.Timer(2.5, os.kill, (os.getpid(), signal.SIGINT))  # after it has looked twice more

    def show_and_go_down(state: MaintenanceState, *, stamp: bool) -> None:
        show(state, stamp=stamp)
        backend.go_down()
        timer.start()

    monkeypatch.setattr("fastapi_maintenance.cli.commands.show", show_and_go_down)
    result = command("watch", "--app", "shop:app")
    timer.join()
    assert (130, 1) == (result.exit_code, len(result.stdout.splitlines()))
    (line,) = errors(result).splitlines()
    assert line.startswith("fastapi-maintenance: The maintenance state cannot be read from ")


# Before and after the subcommand


@pytest.mark.parametrize(
    "words", [["{0}", "{1}", "status"], ["status", "{0}", "{1}"], ["{0}", "{1}", "status", "{0}", "{1}"]]
)
def test_the_switch_is_named_before_or_after_the_subcommand(module: str, words: list[str]) -> None:
    for option, value in (("--backend", "file:of_the_option"), ("--app", f"{module}:app")):
        result = command(*(word.format(option, value) for word in words))
        name = {"--backend": value, "--app": f"LocalFileBackend('of_the_app') of {value}"}[option]
        assert (0, "off\n", f"switch: {name}\n") == (result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(("option", "value"), [("--backend", "redis://:secret@host"), ("--app", "shop:app")])
def test_two_values_of_one_option_are_refused_and_not_shown(option: str, value: str) -> None:
    result = command(option, value, "off", option, "file:switch")
    text = f"error: {option} has different values before and after the subcommand; give it once\n"
    assert (2, text) == (result.exit_code, result.stderr)


def test_an_option_before_the_subcommand_overrules_the_variable() -> None:
    for words in (["--backend", "file:of_the_option", "on"], ["on", "--backend", "file:of_the_option"]):
        result = command(*words, FASTAPI_MAINTENANCE_BACKEND="file:of_the_variable")
        assert (0, "switch: file:of_the_option\n") == (result.exit_code, result.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["on"], "switch: file:switch\n"),
        (["off"], "switch: file:switch\n"),
        (["status"], "switch: file:switch\n"),
        (["status", "--json"], ""),
        (["run", "--", "true"], "switch: file:switch\n"),
        (["run", "--", "no-such"], "switch: file:switch\nno-such: No such file or directory\n"),
        (["release", "none"], "switch: file:switch\nerror: no hold has the id 'none'\n"),
    ],
)
def test_each_subcommand_says_which_switch_it_acts_on(words: list[str], said: str) -> None:
    assert said == switch(*words).stderr


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
def test_a_switch_is_named_without_passwords(url: str, name: str) -> None:
    assert name == without_password(url)


# As a process


def held() -> int:
    """Return how many jobs hold the switch in the file."""
    return len(state().holds)


def wait_until(condition: Any, *, within: float = 60) -> None:  # noqa: ANN401 -- a function of nothing
    """Return when the condition has come true; fail when it does not."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.02)


def process(*words: str, **settings: Any) -> subprocess.Popen[str]:  # noqa: ANN401 -- those of Popen
    """Start the command as a process."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FASTAPI_MAINTENANCE_BACKEND": "file:switch",
        **settings.pop("env", {}),
    }
    return subprocess.Popen([*COMMAND, *words], env=env, text=True, **settings)


@contextmanager
def on_each_store(kind: str) -> Iterator[str]:
    """Give the URL of a store of this kind."""
    if kind == "file":
        yield "file:switch"
    else:
        with running(kind) as server:
            yield server.url


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["file", "redis", "asyncpg"])
def test_a_command_runs_while_it_is_closed(kind: str) -> None:
    look = (
        "import anyio, sys; from fastapi_maintenance import get_maintenance_mode; "
        "sys.exit(10 + anyio.run(get_maintenance_mode, sys.argv[1]))"
    )
    with on_each_store(kind) as url:
        words = ["run", "--message", "Migration", "--", sys.executable, "-c", look, url]
        assert 11 == process(*words, env={"FASTAPI_MAINTENANCE_BACKEND": url}).wait(timeout=60)
        assert 10 == subprocess.call(
            [sys.executable, "-c", look, url], cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(ROOT)}
        )


@pytest.mark.servers
@pytest.mark.parametrize(("words", "status"), [(["true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42)])
def test_the_exit_status_is_that_of_the_command(words: Sequence[str], status: int) -> None:
    assert status == process("run", "--", *words).wait(timeout=60)
    assert MaintenanceState() == state()


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_the_exit_status_is_kept_where_the_hold_cannot_be_released(script: str, status: int) -> None:
    Path("folder").mkdir()
    result = command("run", "--backend", "file:folder/switch", "--", "sh", "-c", f"rm -r folder; {script}")
    assert status == result.exit_code
    assert errors(result).startswith("error: the hold could not be released and counts up to 30s longer: ")
    assert 1 == len(errors(result).splitlines())


def test_of_a_bare_switch_that_cannot_be_set_back_it_says_that_it_stays_on(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = BareSwitch()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)

    async def go_down() -> None:
        backend.go_down()
        await checkpoint()

    backend.after_write = go_down
    result = command("run", "--app", module, "--", "sh", "-c", "exit 3")
    text = "error: the hold could not be released and leaves the switch on: ConnectionError: the store is down\n"
    holds.forget(backend)
    assert (3, text) == (result.exit_code, errors(result))


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["redis", "asyncpg"])
@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -KILL $$", 137)])
def test_the_exit_status_is_kept_where_the_store_goes_away(kind: str, script: str, status: int) -> None:
    with running(kind) as server:
        url = {"FASTAPI_MAINTENANCE_BACKEND": server.url}
        script = f"touch begun; while [ ! -e gone ]; do sleep 0.05; done; {script}"
        started = process("run", "--", "sh", "-c", script, env=url, stderr=subprocess.PIPE)
        wait_until(Path("begun").exists)
        server.kill()
        Path("gone").touch()
        _, said = started.communicate(timeout=60)
    assert status == started.returncode
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert line.startswith("error: the hold could not be released and counts up to 30s longer: ")


@pytest.mark.servers
def test_a_command_that_is_not_there_is_127_and_lifts_it() -> None:
    started = process("run", "--", "no-such-command", stderr=subprocess.PIPE)
    _, said = started.communicate(timeout=60)
    text = "switch: file:switch\nno-such-command: No such file or directory\n"
    assert (127, text) == (started.returncode, said)
    assert MaintenanceState() == state()


def test_nothing_is_run_where_it_cannot_be_closed() -> None:
    result = command("run", "--backend", "file:no/folder/switch", "--", "touch", "ran")
    assert (1, False) == (result.exit_code, Path("ran").exists())
    assert errors(result).startswith("error: the store cannot be reached: FileNotFoundError")


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_goes_to_the_command_and_it_is_lifted(number: signal.Signals) -> None:
    with process("run", "--", "sh", "-c", "touch begun; exec sleep 60", stdin=subprocess.DEVNULL) as started:
        wait_until(Path("begun").exists)
        assert 1 == held()
        started.send_signal(number)
        assert 128 + number == started.wait(timeout=60)
    assert MaintenanceState() == state()


@pytest.mark.servers
def test_a_command_that_heeds_a_signal_in_its_own_way_is_waited_for() -> None:
    script = "trap 'echo tidied; exit 7' TERM; echo begun; while true; do sleep 0.1; done"
    with process("run", "--", "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert "begun\n" == started.stdout.readline()
        started.send_signal(signal.SIGTERM)
        assert (7, "tidied\n") == (started.wait(timeout=60), started.stdout.read())
    assert MaintenanceState() == state()


@pytest.mark.servers
def test_its_hold_runs_out_where_the_command_itself_is_killed() -> None:
    with process("run", "--lease", "2s", "--", "cat", stdin=subprocess.PIPE) as started:  # as long as the pipe is open
        wait_until(lambda: held() == 1)
        started.kill()
    (hold,) = state().holds
    assert hold.expires_at is not None
    assert hold.expires_at < datetime.now(UTC) + timedelta(seconds=2)


@pytest.mark.servers
def test_the_status_counts_the_jobs_that_hold_it() -> None:
    with process("run", "--message", "Deployment", "--", "sleep", "60", stdin=subprocess.DEVNULL) as started:
        wait_until(lambda: held() == 1)
        told = rf"on( for \d+ s)? by {ME}: Deployment  held by 1 running job \({state().holds[0].id[:8]}\)\n"
        assert re.fullmatch(told, switch("status").stdout)
        started.terminate()


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["file", "redis"])
def test_watching_prints_each_change_until_it_is_interrupted(kind: str) -> None:
    with on_each_store(kind) as url:
        started = process(
            "watch", env={"FASTAPI_MAINTENANCE_BACKEND": url, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE
        )
        with started:
            assert started.stdout is not None
            lines = [started.stdout.readline()]
            for active in (True, False):
                anyio.run(partial(set_maintenance_mode, active, url, by="alice"))
                lines.append(started.stdout.readline())
            started.send_signal(signal.SIGINT)
            assert 130 == started.wait(timeout=60)
    assert ["off", "on by alice", "off by alice"] == [line[10:].strip() for line in lines]


@pytest.mark.servers
def test_it_is_plain_when_it_is_piped_and_coloured_where_that_is_asked_for() -> None:
    outputs = [
        process("status", env=env, stdout=subprocess.PIPE).communicate(timeout=60)[0]
        for env in ({}, {"FORCE_COLOR": "1", "TERM": "xterm"}, {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"})
    ]
    assert "off\n" == outputs[0]
    assert "\x1b[" in outputs[1]
    assert "off\n" == outputs[2]


def test_it_tells_its_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (0, f"{__version__}\n") == (result.exit_code, result.stdout)


def test_what_is_read_is_what_was_set() -> None:
    switch("on", "--message", "why")
    assert "why" == anyio.run(get_maintenance_state, LocalFileBackend("switch")).message


def test_without_typer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.cli.commands")
    needs = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    with pytest.raises(ImportError, match=re.escape(needs)):
        __import__("fastapi_maintenance.cli.commands")
    with pytest.raises(SystemExit, match=re.escape(f"error: {needs}")):
        cli.main()


# What is told


def test_a_store_that_holds_garbage_is_no_wrong_usage() -> None:
    Path("switch").write_text("garbage", encoding="utf-8")
    result = switch("status")
    assert 1 == result.exit_code
    assert "the store holds what is no state, which `on` and `off` replace: value must be" in errors(result)
    assert 0 == switch("on").exit_code


def test_a_window_lasts_from_its_beginning_to_its_end() -> None:
    result = switch("on", "--from", "2101-01-01T00:00Z", "--for", "5m")
    assert ", for 5m" in result.stdout.replace("\n", " ")


def test_what_ends_the_command_is_left_ignored_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = {signal.SIGHUP: signal.SIG_IGN}
    handled: list[int] = []
    monkeypatch.setattr(commands, "app", lambda: None)
    monkeypatch.setattr(signal, "getsignal", lambda number: ignored.get(number, signal.SIG_DFL))
    monkeypatch.setattr(signal, "signal", lambda number, _: handled.append(number))
    commands.main()
    assert [signal.SIGTERM] == handled
    ignored.clear()
    commands.main()
    assert [signal.SIGTERM, signal.SIGTERM, signal.SIGHUP] == handled
