"""`on`, `off`, `edit`, `plan`, `cancel` and `release`: what they change, print and refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance._switch import holds
from fastapi_maintenance.cli import change
from fastapi_maintenance.cli.durations import format_time
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold, Switch, Window, add_hold
from fastapi_maintenance.testing import moved_clock
from tests.cli.driving import NOW, Part, at, errors, invoke, on_app, on_file, state_with, store, stored, use
from tests.stores import BareSwitch, DetailedStore
from tests.switch.lifespans import once

pytestmark = pytest.mark.usefixtures("_at_noon")

SWITCH = Switch(on=True)
ON = Switch(on=True, message="Bck", ends_at=at(30), by="alice", since=at(-120))
BEGUN = Window(id="decade0123456789", starts_at=at(-60), ends_at=at(60), message="Old database")
LATER = Window(id="c0ffee0123456789", starts_at=at(60), ends_at=at(180), message="New database", by="bob")
JOB = Hold(id="badcab1e01234567", on=True)
JOB_2 = replace(JOB, id="badcab")
OPENER = Hold(id="0ff0ff0ff0123456", on=False)

ONE, HALF = (format_time(at(minutes)) for minutes in (60, 30))
END = f"  until {HALF}, for 30m"
PLAN = f"\nplanned c0ffee01 by bob: New database  from {ONE}, in 1h  until {format_time(at(180))}, for 2h"
BY_ALICE = "on for 2 h by alice"
WHOLE = f"{BY_ALICE}: Bck{END}"
HELD = "held by 1 running job"
STILL = "the switch is {}; {} maintenance {}"
TAKEN_OVER = Switch(on=True, message="Old database", ends_at=at(60), by="bob", since=NOW)


@pytest.mark.parametrize(
    ("words", "before", "out", "err", "after"),
    [
        ("on", [], "on", "", [SWITCH]),
        ("on --by bob -m [at]", [], "on by bob: [at]", "", [Switch(on=True, message="[at]", by="bob", since=NOW)]),
        ("on --for 30m", [], f"on{END}", "", [Switch(on=True, ends_at=at(30), since=NOW)]),
        ("on --until 2030-01-01T13:30+01:00", [], f"on{END}", "", [Switch(on=True, ends_at=at(30), since=NOW)]),
        # What is not mentioned is kept, unless it is no longer in force.
        ("on", [ON], WHOLE, f'kept: until {HALF}, "Bck", by alice', [ON]),
        ("on -m A", [ON], f"{BY_ALICE}: A{END}", f"kept: until {HALF}, by alice", [replace(ON, message="A")]),
        ("on --no-end", [ON], f"{BY_ALICE}: Bck", 'kept: "Bck", by alice', [replace(ON, ends_at=None)]),
        (
            "edit --no-message",
            [ON],
            BY_ALICE + END,
            f"kept: until {HALF}, by alice",
            [replace(ON, message=None)],
        ),
        (
            "edit --until 2030-01-01T12:30Z --by bob",
            [ON],
            WHOLE.replace("alice", "bob"),
            'kept: "Bck"',
            [replace(ON, by="bob")],
        ),
        ("edit -m A", [SWITCH], "on: A", "", [Switch(on=True, message="A")]),
        ("on", [replace(ON, ends_at=NOW)], "on", "", [SWITCH]),
        (
            "on --by bob",
            [BEGUN],
            f"on by bob: Old database  until {ONE}, for 1h  in 1 window (decade01)",
            f'kept: until {ONE}, "Old database"',
            [TAKEN_OVER, BEGUN],
        ),
        ("off", [ON], "off", "", []),
        ("off --by bob", [ON], "off by bob", "", [Switch(by="bob", since=NOW)]),
        ("off", [ON, BEGUN, LATER], f"off{PLAN}", "", [LATER]),
        # Jobs decide.
        ("off", [ON, JOB], f"on  {HELD} (badcab1e)", STILL.format("off", "1 job still holds", "on"), [JOB]),
        (
            "off",
            [ON, OPENER, JOB, JOB_2],
            "on  held by 3 running jobs (0ff0ff0f, badcab1e, badcab)",
            STILL.format("off", "2 jobs still hold", "on"),
            [OPENER, JOB, JOB_2],
        ),
        ("on", [OPENER], f"off  {HELD} (0ff0ff0f)", STILL.format("on", "1 job still holds", "off"), [SWITCH, OPENER]),
        # An id, or its first characters
        ("cancel c0ffee", [ON, LATER], WHOLE, "", [ON]),
        ("cancel decade0123456789", [BEGUN, LATER], f"off{PLAN}", "", [LATER]),
        ("release badcab1e01234567", [JOB, JOB_2], f"on  {HELD} (badcab)", "", [JOB_2]),
        ("release badcab", [JOB, JOB_2], f"on  {HELD} (badcab1e)", "", [JOB]),
        ("release badcab", [JOB], "off", "", []),
    ],
)
def test_command_changes_the_state_and_prints_it(
    words: str, before: list[Part], out: str, err: str, after: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_PUT_BACK_WITHIN", 0)
    store(*before)
    result = on_file(*words.split())
    assert (result.exit_code, result.stdout, errors(result).rstrip()) == (0, f"{out}\n", err)
    assert Path("switch").read_text().strip() == state_to_text(state_with(*after))


def test_release_of_a_hold_whose_job_still_runs_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DetailedStore(state_with(JOB))
    use(monkeypatch, backend)
    once(backend, "after_write", lambda: backend.memory.update_state(lambda state: add_hold(state, JOB, NOW)))
    result = on_app("release", "badcab1e")
    text = "error: the job of this hold still runs, and has put it back\n"
    assert (result.exit_code, result.stdout, errors(result)) == (1, f"on  {HELD} (badcab1e)\n", text)


def test_on_whose_end_passes_before_its_drain_begins_drains_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with moved_clock() as moved:

        async def take_a_minute(*_: object) -> None:
            moved.move(minutes=1)
            await checkpoint()

        monkeypatch.setattr(change, "print_workers_with_state", take_a_minute)
        result = on_file("on", "--for", "30s", "--drain", "9s")
    assert (result.exit_code, "no worker has signed in" in result.stderr) == (75, True)


@pytest.mark.parametrize(
    ("words", "ends_at", "end"),
    [
        ("--from 2030-01-01T22:00+09:00 --until 04:00", at(420), f"until {format_time(at(420))}, for 6h"),  # there
        ("--from 2030-01-01T13:00Z --for 90m", at(150), f"until {format_time(at(150))}, for 1h30m"),
        ("--from 2030-01-01T13:00Z", None, "without an end"),
    ],
)
def test_plan_prints_the_window_with_its_id_and_changes_nothing_now(words: str, ends_at: object, end: str) -> None:
    store(ON)
    result = on_file("plan", *words.split(), "-m", "New database", "--by", "bob")
    (window,) = stored().windows
    line = f"planned {window.id[:8]} by bob: New database  from {ONE}, in 1h  {end}\n"
    assert (result.exit_code, result.stdout, errors(result)) == (0, line, "")
    assert (window.starts_at, window.ends_at, window.since, stored().switch) == (at(60), ends_at, NOW, ON)


MANY = [replace(part, id=one) for part in (LATER, JOB) for one in ("c0ffee0123456789", "c0ffee1", "decade")]
NOT_ONE = (
    "'{}' does not name one {}: give at least 6 characters of an id, and more if several begin with them; it matches {}"
)


@pytest.mark.parametrize(
    ("words", "before", "status", "text"),
    [
        ("on --for soon", [], 2, "--for: 'soon' is not a duration above zero, such as 90s"),
        ("on --until 25:00", [], 2, "--until: '25:00' is not a time such as 22:00"),
        ("on --for 1h --until 22:00", [], 2, "give only one of --for and --until"),
        ("on --for 1h --no-end", [], 2, "give only one of --for and --no-end"),
        ("on --from 22:00", [], 2, "--from belongs to `plan`; `on` begins now"),
        ("on --drain soon", [], 2, "--drain: 'soon' is not a duration"),
        ("on --switch bills", [], 2, "--switch chooses among the switches of an app; a URL is one switch"),
        ("edit -m why --no-message", [], 2, "give only one of --message and --no-message"),
        ("edit", [], 2, "nothing to change: give --message, --no-message, --for, --until, --no-end or --by"),
        ("edit --until 2001-01-01T00:00Z", [], 2, "--until must be in the future, got 2001-01-01T00:00:00+00:00"),
        ("edit --no-end", [], 1, "maintenance is off; use `on`"),
        ("edit --no-end", [OPENER], 1, "maintenance is off; use `on`"),
        ("edit --no-end", [JOB], 1, "the switch is off; use `on`"),
        ("edit --no-end", [BEGUN], 1, f"the switch is off, and the window {BEGUN.id} is in force; use `on`, which"),
        ("plan --from x", [], 2, "--from: 'x' is not a time"),
        ("plan --from 2001-01-01", [], 2, "--from must be in the future"),
        ("plan --from 2101-01-02 --until 2101-01-01", [], 2, "--until must be after --from"),
        ("plan --from 9999-12-30 --for 9d", [], 2, "--for: '9d' ends after the year 9999"),
        ("run --lease 0s -- true", [], 2, "--lease: '0s' is not a duration"),
        ("run --drain 0s -- true", [], 2, "--drain: '0s' is not a duration"),
        ("run --expect 9999999d -- true", [], 2, "--expect: '9999999d' ends after the year 9999"),
        ("run --drian 3s -- touch ran", [], 2, "there is no option --drian; put the command to run after --"),
        *(
            (words.format(option), [], 2, text)
            for words in ("on {}", "run {} -- touch ran")
            for option, text in {
                "--workers 2": "--workers needs --drain: it says how many processes have to confirm",
                "--drain 1s": "--drain must be at least 2 seconds on LocalFileBackend('switch'), got 1",
            }.items()
        ),
        *(
            (f"{word} {name}", MANY, 1, text.format(name, kind, begins))
            for word, kind in (("cancel", "window"), ("release", "hold"))
            for name, text, begins in (
                ("c0ffe", NOT_ONE, "c0ffee0123456789, c0ffee1"),
                ("c0ffee", NOT_ONE, "c0ffee0123456789, c0ffee1"),
                ("dec", NOT_ONE, "decade"),
                ("c0ffee02", "no {1} has the id '{0}'", ""),
            )
        ),
    ],
)
def test_command_that_is_refused_prints_one_line_and_changes_nothing(
    words: str, before: list[Part], status: int, text: str
) -> None:
    store(*before)
    result = on_file(*words.split())
    assert (result.exit_code, len(errors(result).splitlines())) == (status, 1)
    assert errors(result).startswith(f"error: {text}")
    assert (stored(), Path("ran").exists()) == (state_with(*before), False)


@pytest.mark.parametrize("words", ["status", "edit --no-end", "plan --from 22:00", "release c0ffee", "on", "off"])
def test_invalid_state_is_an_error_that_on_and_off_overwrite(words: str) -> None:
    Path("switch").write_text("garbage", encoding="utf-8")
    result = on_file(*words.split())
    if words in {"on", "off"}:
        assert (result.exit_code, Path("switch").read_text()) == (0, {"on": "1\n", "off": "0\n"}[words])
    else:
        text = r"error: the stored value is not a valid state \(`on` and `off` overwrite it\): value"
        assert (result.exit_code, bool(re.match(text, errors(result)))) == (1, True)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("on -m why", "message"),
        ("on --for 1h", "an end"),
        ("on --by alice", "by"),
        ("off --by alice", "by"),
        ("edit --no-end", "edit"),
        ("plan --from 22:00", "plan"),
        ("cancel c0ffee", "cancel"),
        ("release c0ffee", "release"),
        ("run --by alice -- touch ran", "by"),
        ("run --lease 30s -- touch ran", "lease"),
        ("run --expect 5m -- touch ran", "an end"),
    ],
)
def test_command_on_a_bare_switch_refuses_what_it_cannot_keep(
    words: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)
    result = on_app(*words.split())
    text = f"error: {first} needs a backend with the method update_state(change), which {backend!r} lacks\n"
    assert (result.exit_code, errors(result), Path("ran").exists(), backend.value) == (1, text, False, False)


@pytest.mark.parametrize("words", ["on", "on --no-end", "off", "run -- true"])
def test_command_on_a_bare_switch_sets_it(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)
    result = on_app(*words.split())
    assert (result.exit_code, errors(result)) == (0, "")
    assert anyio.run(backend.get_value) is words.startswith("on")


@pytest.mark.parametrize(
    ("words", "text", "status"),
    [
        ("on --backend reddis://host", "backend must begin with one of env: file:", 2),
        ("on --backend file:no/folder/switch", "the store cannot be reached: FileNotFoundError", 1),
        ("run --backend file:no/folder/switch -- touch ran", "the store cannot be reached: FileNotFoundError", 1),
        ("on --backend redis://127.0.0.1:1", "the store cannot be reached: ConnectionError", 1),
        ("on --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("edit --no-end --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("release any --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("watch --backend redis://127.0.0.1:1", "the store cannot be reached: ConnectionError", 1),
    ],
)
def test_command_on_a_store_that_cannot_be_used_prints_one_line(words: str, text: str, status: int) -> None:
    result = invoke(*words.split())
    assert (result.exit_code, result.stdout, Path("ran").exists()) == (status, "", False)
    assert re.match(f"(fastapi-maintenance: .*\n)?error: {re.escape(text)}.*\n$", errors(result))
