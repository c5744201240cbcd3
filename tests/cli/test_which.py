"""Which switch the command acts on, how it names it, and what the command says of itself."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_maintenance import LocalFileBackend, __version__, cli
from fastapi_maintenance.cli import commands
from fastapi_maintenance.cli.switch import without_password
from tests.cli.driving import command, errors, process, switch, use
from tests.stores import BareSwitch

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
two = FastAPI()
two.add_middleware(maintenance_middleware(backend=LocalFileBackend("shop")))
two.add_middleware(maintenance_middleware(backend=LocalFileBackend("shop_of_bills")))
two.add_middleware(maintenance_middleware(backend=LocalFileBackend("shop")))
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
        ("plain", 2, "is not an app with a maintenance middleware"),
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
        name = f"file:{Path('of_the_option').absolute()}"
        if option == "--app":
            name = f"file:{Path('of_the_app').absolute()} of {value}"
        assert (result.exit_code, result.stdout, result.stderr) == (0, "off\n", f"switch: {name}\n")


@pytest.mark.parametrize(("option", "value"), [("--backend", "redis://:secret@host"), ("--app", "shop:app")])
def test_two_values_of_one_option_are_refused_and_not_shown(option: str, value: str) -> None:
    result = command(option, value, "off", option, "file:switch")
    text = f"error: {option} has different values before and after the subcommand; give it once\n"
    assert (result.exit_code, result.stderr) == (2, text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("on", "{}on: {nobody}"),
        ("off", "{}off: {nobody}"),
        ("plan --from 22:00", "{}"),
        ("status", "{}"),
        ("status --json", ""),
        ("workers", "{}"),
        ("run -- true", "{}maintenance begins\non: {nobody}released after 1s; maintenance is off\n"),
        ("release none", "{}error: no hold has the id 'none'\n"),
    ],
)
@pytest.mark.usefixtures("_at_noon")
def test_subcommand_names_its_switch(words: str, text: str) -> None:
    name = f"file:{Path('switch').absolute()}"
    nobody = f"no worker has signed in behind {name}; is this the switch of the service?\n"
    assert switch(*words.split()).stderr == text.format(f"switch: {name}\n", nobody=nobody)


def test_app_with_two_switches_names_both(module: str) -> None:
    result = command("on", "--app", f"{module}:two")
    shop = f"file:{Path('shop').absolute()}"
    text = f"error: {module}:two has 2 switches, {shop}, {shop}_of_bills: choose one with --switch\n"
    assert (result.exit_code, result.stderr, list(Path().glob("shop*[!y]"))) == (2, text, [])


@pytest.mark.parametrize("words", [["--switch", "{}", "on"], ["on", "--switch", "{}"]])
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("bills", "shop_of_bills"), ("{folder}/shop", "shop"), ("{folder}/shop_of_bills", "shop_of_bills")],
)
def test_switch_is_chosen_by_its_name_or_a_part_of_it(module: str, words: list[str], name: str, chosen: str) -> None:
    name = name.format(folder=f"file:{Path.cwd()}")
    result = command(*(word.format(name) for word in words), "--app", f"{module}:two")
    assert result.stderr.startswith(f"switch: file:{Path(chosen).absolute()} of {module}:two\n")
    assert [LocalFileBackend(each).peek().switch.on for each in ("shop", "shop_of_bills")] == [
        each == chosen for each in ("shop", "shop_of_bills")
    ]


@pytest.mark.parametrize("name", ["shop", "stock"])
def test_part_that_is_not_of_the_name_of_one_switch_names_both(module: str, name: str) -> None:
    result = command("on", "--app", f"{module}:two", "--switch", name)
    shop = f"file:{Path('shop').absolute()}"
    text = (
        f"error: --switch must be a part of the name of one switch of {module}:two, which has {shop}, {shop}_of_bills; "
        f"got '{name}'\n"
    )
    assert (result.exit_code, result.stderr) == (2, text)


def test_switch_of_an_app_shows_what_a_backend_of_ones_own_is(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, BareSwitch())
    assert command("status", "--app", f"{module}:app").stderr == f"switch: BareSwitch of {module}:app\n"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("env:NAME", "env:NAME"),
        ("file:///at/home@ten.txt", "file:/at/home@ten.txt"),
        ("file:", "file:"),
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
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}, False),
    ],
)
def test_pipe_gets_colour_only_if_it_is_asked_for(env: dict[str, str], is_coloured: bool) -> None:
    output, _ = process("status", env=env, stdout=subprocess.PIPE).communicate(timeout=60)
    assert ("\x1b[" in output, output == "off\n") == (is_coloured, not is_coloured)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--backend", "env", "--var-name", "CLOSED"], "env:CLOSED"),
        (["--var-name", "CLOSED"], "env:CLOSED"),
        (["--backend", "file", "--file-path", "a b#c"], "file:{}/a b#c"),
    ],
)
def test_status_takes_what_version_0_0_5_took(words: list[str], name: str) -> None:
    Path("a b#c").write_text("1")
    result = command("status", *words, CLOSED="1")
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert result.stderr == f"switch: {name.format(Path.cwd())}\n"


def test_status_with_a_url_refuses_a_variable_of_its_own() -> None:
    result = command("status", "--backend", "redis://host", "--var-name", "CLOSED")
    text = "error: --var-name belongs to --backend env; a URL has it in itself, as env:CLOSED\n"
    assert (result.exit_code, result.stderr) == (2, text)


def test_app_may_be_wrapped_in_its_middleware(module: str) -> None:
    lines = ["from starlette.responses import PlainTextResponse", APPS]
    wrapped = 'wrapped = maintenance_middleware(backend=LocalFileBackend("around"))(PlainTextResponse())'
    Path(f"{module}.py").write_text("\n".join([*lines, wrapped]))
    assert command("on", "--app", f"{module}:wrapped").exit_code == 0
    assert Path("around").exists()


@pytest.mark.parametrize("words", [["status"], ["--help"]])
def test_what_the_terminal_cannot_encode_is_escaped(words: list[str]) -> None:
    assert switch("on", "--message", "Zur\u00fcck \u2603").exit_code == 0
    env = {"PYTHONIOENCODING": "ascii"}
    with process(*words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        output, problems = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in problems, "error" in problems) == (0, False, False)
    assert words == ["--help"] or r"Zur\xfcck \u2603" in output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "") for name in ("on", "plan", "edit", "run")),
        ("run", "maintenance ends, the command is not run"),
        ("on", "maintenance stays on"),
        *((name, "") for name in ("off", "cancel", "status", "workers", "routes", "watch", "release")),
        ("", ""),
    ],
)
def test_help_has_examples_and_says_what_may_be_given(name: str, said: str) -> None:
    results = [command(*name.split(), option).stdout for option in ("-h", "--help")]
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", results[0]).split())
    assert results[0] == results[1]
    assert f"Examples: {'export' if not name else f'fastapi-maintenance {name}'}" in text
    assert said in text
    for metavar, note in (("DURATION", "A DURATION is 90s, 30m"), ("TIME", "A TIME is 22:00, the next")):
        assert (note in text) is (f" {metavar} " in text.partition("Examples:")[0])
