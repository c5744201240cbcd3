"""Which switch the command acts on, and how it names it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fastapi_maintenance import LocalFileBackend
from fastapi_maintenance.cli.target import without_password
from tests.cli.driving import errors, invoke, on_app, on_file, use
from tests.stores import BareSwitch

APPS = """
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from fastapi_maintenance import LocalFileBackend, MaintenanceModeMiddleware, MemoryBackend, maintenance_middleware

plain, app, by_class, in_memory, two, by_default = (FastAPI() for _ in range(6))
app.add_middleware(maintenance_middleware(backend=LocalFileBackend("of_the_app")))
by_class.add_middleware(MaintenanceModeMiddleware, backend="file:of_the_class")
in_memory.add_middleware(maintenance_middleware(backend=MemoryBackend()))
for name in ("shop", "shop_of_bills", "shop"):
    two.add_middleware(maintenance_middleware(backend=LocalFileBackend(name)))
by_default.add_middleware(maintenance_middleware())
broken = FastAPI()
broken.add_middleware(MaintenanceModeMiddleware, backend="file:broken")
broken.user_middleware[0].kwargs["backend"] = 7
wrapped = maintenance_middleware(backend=LocalFileBackend("of_the_wrapped"))(PlainTextResponse())
"""
NO_BACKEND = (
    "no backend given: give --backend URL or --app module:attribute, set FASTAPI_MAINTENANCE_BACKEND, or have an "
    "entrypoint under [tool.fastapi] in pyproject.toml"
)


@pytest.fixture(autouse=True)
def _apps(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("apps.py").write_text(APPS)
    monkeypatch.delitem(sys.modules, "apps", raising=False)


@pytest.mark.parametrize(
    ("words", "variable", "chosen"),
    [
        ("--backend file:of_the_option --app apps:by_class", "file:of_the_variable", "of_the_option"),
        ("--app apps:by_class", "file:of_the_variable", "of_the_class"),
        ("", "file:of_the_variable", "of_the_variable"),
        ("", "", "of_the_app"),
        ("--app apps:wrapped", "", "of_the_wrapped"),
    ],
)
def test_command_uses_the_switch_of_an_option_else_of_the_variable_else_of_the_entrypoint(
    words: str, variable: str, chosen: str
) -> None:
    Path("pyproject.toml").write_text('[tool.fastapi]\nentrypoint = "apps:app"\n')
    result = invoke(*words.split(), "on", FASTAPI_MAINTENANCE_BACKEND=variable)
    assert (result.exit_code, [path.name for path in Path().glob("of_the_*[!k]")]) == (0, [chosen])


@pytest.mark.parametrize(
    ("words", "project", "status", "text"),
    [
        ("--app apps:plain", "", 2, "apps:plain is not an app with a maintenance middleware"),
        ("--app apps:nothing", "", 2, "the app apps:nothing cannot be imported: AttributeError: "),
        ("--app apps:broken", "", 2, "the middleware of apps:broken cannot be created: TypeError: "),
        ("--app apps:APPS", "", 2, "the app apps:APPS cannot be imported: "),
        ("--app no_such_module:app", "", 2, "the app no_such_module:app cannot be imported: ModuleNotFoundError: "),
        ("--app apps", "", 2, "--app must have the form module:attribute, got 'apps'"),
        (
            "--app apps:in_memory",
            "",
            2,
            "the switch MemoryBackend() of apps:in_memory is in the memory of its own",
        ),
        ("--backend memory:", "", 2, "the switch memory: is in the memory of its own process: use a store, such as"),
        (
            "--app apps:by_default",
            "",
            1,
            "the environment variable FASTAPI_MAINTENANCE_MODE cannot be switched at run time",
        ),
        ("", "", 2, NO_BACKEND),
        ("", "[tool.fastapi]\n", 2, NO_BACKEND),
        ("", "not toml", 2, NO_BACKEND),
    ],
)
def test_command_without_a_switch_that_it_can_set_prints_why(words: str, project: str, status: int, text: str) -> None:
    Path("pyproject.toml").write_text(project)
    result = invoke("on", *words.split())
    assert (result.exit_code, errors(result).count("\n")) == (status, 1)
    assert errors(result).startswith(f"error: {text}")


@pytest.mark.parametrize("words", ["--app apps:by_default", "--backend env:SOME_VARIABLE"])
def test_run_on_a_switch_that_can_only_be_read_does_not_start_the_command(words: str) -> None:
    result = invoke("run", *words.split(), "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists(), "can only be read" in errors(result)) == (1, False, True)


@pytest.mark.parametrize("words", ["{0} {1} status", "status {0} {1}", "{0} {1} status {0} {1}"])
@pytest.mark.parametrize(
    ("option", "value", "name"),
    [("--backend", "file:of_the_option", "{}/of_the_option"), ("--app", "apps:app", "{}/of_the_app of apps:app")],
)
def test_option_may_stand_before_or_after_the_subcommand(words: str, option: str, value: str, name: str) -> None:
    result = invoke(*words.format(option, value).split())
    stderr = f"switch: file:{name.format(Path.cwd())}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, "off\n", stderr)


@pytest.mark.parametrize(("option", "value"), [("--backend", "redis://:secret@host"), ("--app", "shop:app")])
def test_option_with_two_values_is_refused_and_not_shown(option: str, value: str) -> None:
    result = invoke(option, value, "off", option, "file:switch")
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
def test_subcommand_names_its_switch_and_says_if_no_worker_is_behind_it(words: str, text: str) -> None:
    name = f"file:{Path('switch').absolute()}"
    nobody = f"no worker has signed in behind {name}; is this the switch of the service?\n"
    assert on_file(*words.split()).stderr == text.format(f"switch: {name}\n", nobody=nobody)


@pytest.mark.parametrize("words", ["--switch {} on", "on --switch {}"])
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("bills", "shop_of_bills"), ("file:{}/shop", "shop"), ("file:{}/shop_of_bills", "shop_of_bills")],
)
def test_switch_of_an_app_with_two_is_chosen_by_its_name_or_a_part_of_it(words: str, name: str, chosen: str) -> None:
    result = invoke("--app", "apps:two", *words.format(name.format(Path.cwd())).split())
    assert result.stderr.startswith(f"switch: file:{Path(chosen).absolute()} of apps:two\n")
    assert [each for each in ("shop", "shop_of_bills") if LocalFileBackend(each).peek().switch.on] == [chosen]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "apps:two has 2 switches, {0}: choose one with --switch"),
        ("--switch shop", "--switch must be a part of the name of one switch of apps:two, which has {0}; got 'shop'"),
        ("--switch stock", "--switch must be a part of the name of one switch of apps:two, which has {0}; got 'stock'"),
    ],
)
def test_switch_of_an_app_with_two_that_is_not_chosen_is_refused(words: str, text: str) -> None:
    result = invoke("on", "--app", "apps:two", *words.split())
    names = ", ".join(f"file:{Path(name).absolute()}" for name in ("shop", "shop_of_bills"))
    assert (result.exit_code, result.stderr) == (2, f"error: {text.format(names)}\n")
    assert [*Path().glob("shop*")] == []


def test_switch_of_an_app_with_a_backend_of_ones_own_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, BareSwitch())
    assert on_app("status").stderr == "switch: BareSwitch of shop:app\n"


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
def test_url_is_shown_without_passwords(url: str, name: str) -> None:
    assert without_password(url) == name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--backend", "env", "--var-name", "CLOSED"], "env:CLOSED"),
        (["--var-name", "CLOSED"], "env:CLOSED"),
        (["--backend", "file", "--file-path", "a b#c"], "file:{}/a b#c"),
    ],
)
def test_status_accepts_the_options_of_version_0_0_5(words: list[str], name: str) -> None:
    Path("a b#c").write_text("1")
    result = invoke("status", *words, CLOSED="1")
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert result.stderr == f"switch: {name.format(Path.cwd())}\n"


def test_status_with_a_url_refuses_the_options_of_version_0_0_5() -> None:
    result = invoke("status", "--backend", "redis://host", "--var-name", "CLOSED")
    text = "error: --var-name goes with --backend env only; a URL contains it: env:CLOSED\n"
    assert (result.exit_code, result.stderr) == (2, text)
