"""Which switch the command acts on, how it names it, and what the command says of itself."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_maintenance import __version__, cli
from fastapi_maintenance.cli import commands
from fastapi_maintenance.cli.switch import without_password
from tests.cli.driving import command, errors, process, switch

APPS = """
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
    Path(f"{name}.py").write_text(APPS)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_switch_is_that_of_an_option_else_of_the_variable_else_of_the_app(module: str) -> None:
    Path("pyproject.toml").write_text(f'[tool.fastapi]\nentrypoint = "{module}:app"\n')
    variable = {"FASTAPI_MAINTENANCE_BACKEND": "file:of_the_variable"}
    of_class = ["--app", f"{module}:by_class"]
    for words, env, name in (
        (["--backend", "file:of_the_option", *of_class], variable, "of_the_option"),
        (of_class, variable, "of_the_class"),
        ([], variable, "of_the_variable"),
        ([], {}, "of_the_app"),
    ):
        assert command(*words, "on", **env).exit_code == 0
        assert [path.name for path in Path().glob("of_the_*[!k]")] == [name]
        Path(name).unlink()


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


@pytest.mark.parametrize("words", [["--app", "{module}:by_default"], ["--backend", "env:SOME_VARIABLE"]])
def test_run_on_a_switch_that_can_only_be_read_runs_nothing(module: str, words: list[str]) -> None:
    result = command("run", *(word.format(module=module) for word in words), "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert "can only be read" in errors(result)


@pytest.mark.parametrize(
    ("words", "project", "text"),
    [
        (["--app", "shop"], None, "--app must be of the form module:attribute, got 'shop'"),
        (["--app", "no_such_module:app"], None, "cannot be imported: ModuleNotFoundError"),
        ([], None, "no backend given: give --backend URL or --app module:attribute"),
        ([], "[tool.fastapi]\n", "no backend given"),
        ([], "no toml", "no backend given"),
        (["--backend", "memory:"], None, "the switch memory: is in the memory of its own process"),
    ],
)
def test_missing_switch_is_an_error_that_says_what_to_do(words: list[str], project: str | None, text: str) -> None:
    if project is not None:
        Path("pyproject.toml").write_text(project)
    result = command("status", *words)
    assert result.exit_code == 2
    assert text in errors(result)


@pytest.mark.parametrize(
    "words", [["{0}", "{1}", "status"], ["status", "{0}", "{1}"], ["{0}", "{1}", "status", "{0}", "{1}"]]
)
def test_switch_is_named_before_or_after_the_subcommand(module: str, words: list[str]) -> None:
    for option, value in (("--backend", "file:of_the_option"), ("--app", f"{module}:app")):
        result = command(*(word.format(option, value) for word in words))
        name = {"--backend": value, "--app": f"LocalFileBackend('of_the_app') of {value}"}[option]
        assert (result.exit_code, result.stdout, result.stderr) == (0, "off\n", f"switch: {name}\n")


@pytest.mark.parametrize(("option", "value"), [("--backend", "redis://:secret@host"), ("--app", "shop:app")])
def test_two_values_of_one_option_are_refused_and_not_shown(option: str, value: str) -> None:
    result = command(option, value, "off", option, "file:switch")
    text = f"error: {option} has different values before and after the subcommand; give it once\n"
    assert (result.exit_code, result.stderr) == (2, text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("on", "switch: file:switch\n"),
        ("off", "switch: file:switch\n"),
        ("plan --from 22:00", "switch: file:switch\n"),
        ("status", "switch: file:switch\n"),
        ("status --json", ""),
        ("run -- true", "switch: file:switch\n"),
        ("run -- no-such", "switch: file:switch\nno-such: No such file or directory\n"),
        ("release none", "switch: file:switch\nerror: no hold has the id 'none'\n"),
    ],
)
def test_subcommand_names_its_switch(words: str, text: str) -> None:
    assert switch(*words.split()).stderr == text


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
def test_switch_is_named_without_passwords(url: str, name: str) -> None:
    assert without_password(url) == name


# The command itself


def test_command_is_what_the_package_installs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastapi-maintenance", "status", "--backend", "file:switch"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert (ended.value.code, capsys.readouterr().out) == (0, "off\n")


def test_version_is_that_of_the_package() -> None:
    result = command("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_help_is_a_table_if_there_is_room() -> None:
    wide, narrow = (command("--help", COLUMNS=columns).stdout for columns in ("80", "79"))
    assert ("╭─ Commands" in wide, "╭─ Commands" in narrow) == (True, False)
    assert "\n  watch    Print each change as it happens, until you press Ctrl-C.\n" in narrow
    help_of_on = command("on", "--help", COLUMNS="40").stdout
    assert ("--backend URL\n" in help_of_on, "--from" in help_of_on) == (True, False)


def test_command_without_typer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.cli.commands")
    needs = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    with pytest.raises(ImportError, match=re.escape(needs)):
        __import__("fastapi_maintenance.cli.commands")
    with pytest.raises(SystemExit, match=re.escape(f"error: {needs}")):
        cli.main()


def test_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.servers
@pytest.mark.parametrize(
    ("env", "is_coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}, False),
    ],
)
def test_pipe_gets_colour_only_if_it_is_asked_for(env: dict[str, str], is_coloured: bool) -> None:
    output, _ = process("status", env=env, stdout=subprocess.PIPE).communicate(timeout=60)
    assert ("\x1b[" in output, output == "off\n") == (is_coloured, not is_coloured)
