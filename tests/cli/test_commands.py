"""The command itself: its help, version, signals and requirements, and what it prints into a pipe."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from fastapi_maintenance import __version__, cli
from fastapi_maintenance.cli import commands
from tests.cli.driving import invoke, on_file, start

NAMES = ["", "on", "off", "edit", "plan", "cancel", "status", "workers", "routes", "watch", "run", "release"]
SAYS = {
    "": "and off again whatever happens.",
    "on": "maintenance stays on",
    "plan": "2030-12-31T22:00+01:00 in another",
    "edit": "90s, 30m, 2h, 1d or 1h30m",
    "run": "maintenance ends, the command is not run",
}


@pytest.mark.parametrize("name", NAMES)
def test_help_at_any_width_has_whole_words_and_examples(name: str) -> None:
    texts = [invoke(*name.split(), option, COLUMNS=width).stdout for option, width in (("-h", "80"), ("--help", "51"))]
    wide, narrow = (" ".join(text.split()) for text in texts)
    assert narrow == wide
    assert f"Examples: {f'fastapi-maintenance {name}' if name else 'export'}" in wide
    assert SAYS.get(name, "") in wide
    assert ("--backend URL" in wide, "--from" in wide) == (name != "routes", name == "plan")


def test_version_is_that_of_the_package() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_main_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fastapi-maintenance", "status", "--backend", "file:switch"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert (ended.value.code, capsys.readouterr().out) == (0, "off\n")


def test_main_without_typer_prints_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.cli.commands")
    text = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    with pytest.raises(SystemExit, match=re.escape(f"error: {text}")):
        cli.main()


def test_main_leaves_a_signal_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ("env", "output"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, "\x1b[1;31mon\x1b[0m: Zur\u00fcck \u2603\n"),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}, "on: Zur\u00fcck \u2603\n"),
        ({"PYTHONIOENCODING": "ascii"}, "on: Zur\\xfcck \\u2603\n"),
    ],
)
def test_pipe_gets_colour_only_on_demand_and_what_it_cannot_encode_escaped(env: dict[str, str], output: str) -> None:
    assert on_file("on", "--message", "Zur\u00fcck \u2603").exit_code == 0
    with start("status", env={"PYTHONUTF8": "1", **env}, stdout=subprocess.PIPE) as started:
        printed, _ = started.communicate(timeout=60)
    assert (started.returncode, re.sub(r" for \d+ s", "", printed)) == (0, output)
