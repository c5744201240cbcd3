"""`on`, `off`, `edit`, `plan`, `cancel` and `release`: what they change, what they print, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance.cli.times import shown_time
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold, Switch, Window
from tests.cli.driving import APP, NOW, OFF, at, command, errors, just, state, switch, use, write
from tests.stores import BareSwitch

pytestmark = pytest.mark.usefixtures("_at_noon")

SWITCH = Switch(on=True)
ON = Switch(on=True, message="Bck", ends_at=at(30), by="alice", since=at(-120))
BEGUN = Window(id="decade0123456789", starts_at=at(-60), ends_at=at(60), message="Old database")
LATER = Window(id="c0ffee0123456789", starts_at=at(60), ends_at=at(180), message="New database", by="bob")
JOB = Hold(id="badcab1e01234567", on=True)
JOB_2 = replace(JOB, id="badcab")
OPENER = Hold(id="0ff0ff0ff0123456", on=False)

ONE, HALF = (shown_time(at(minutes)) for minutes in (60, 30))
END = f"  until {HALF}, for 30m"
PLAN = f"\nplanned c0ffee01 by bob: New database  from {ONE}, in 1h  until {shown_time(at(180))}, for 2h"
MORE = "give at least 6 characters of an id, and more if several begin with them"
STILL = "the switch is {}; {} maintenance {}"


Parts = list[Switch | Window | Hold]
# (words, the state before, what is printed, what is printed on standard error, the state after)
CASES: list[tuple[str, Parts, str, str, Parts]] = [
    ("on", [], "on", "", [SWITCH]),
    ("on --by bob -m [at]", [], "on by bob: [at]", "", [Switch(on=True, message="[at]", by="bob", since=NOW)]),
    ("on --for 30m", [], f"on{END}", "", [Switch(on=True, ends_at=at(30), since=NOW)]),
    ("on --until 2030-01-01T13:30+01:00", [], f"on{END}", "", [Switch(on=True, ends_at=at(30), since=NOW)]),
    # What is not mentioned is kept
    ("on", [ON], f"on for 2 h by alice: Bck{END}", f'kept: until {HALF}, "Bck", by alice', [ON]),
    ("on -m A", [ON], f"on for 2 h by alice: A{END}", f"kept: until {HALF}, by alice", [replace(ON, message="A")]),
    (
        "on --no-end",
        [ON, LATER],
        f"on for 2 h by alice: Bck{PLAN}",
        'kept: "Bck", by alice',
        [replace(ON, ends_at=None), LATER],
    ),
    (
        "edit --no-message",
        [ON],
        f"on for 2 h by alice{END}",
        f"kept: until {HALF}, by alice",
        [replace(ON, message=None)],
    ),
    (
        "edit --until 2030-01-01T12:30Z --by bob",
        [ON],
        f"on for 2 h by bob: Bck{END}",
        'kept: "Bck"',
        [replace(ON, by="bob")],
    ),
    ("edit -m A", [SWITCH], "on: A", "", [Switch(on=True, message="A")]),
    ("on", [replace(ON, ends_at=NOW)], "on", "", [SWITCH]),  # nothing is kept of what is no longer in force
    (
        "on --by bob",
        [BEGUN],
        f"on by bob: Old database  until {ONE}, for 1h  in 1 window (decade01)",
        f'kept: until {ONE}, "Old database"',
        [Switch(on=True, message="Old database", ends_at=at(60), by="bob", since=NOW), BEGUN],
    ),
    # Off
    ("off", [ON], "off", "", []),
    ("off --by bob", [ON], "off by bob", "", [Switch(by="bob", since=NOW)]),
    ("off", [ON, BEGUN, LATER], f"off{PLAN}", "", [LATER]),
    # Jobs
    ("off", [ON, JOB], "on  held by 1 running job (badcab1e)", STILL.format("off", "1 job still holds", "on"), [JOB]),
    (
        "off",
        [ON, OPENER, JOB, JOB_2],
        "on  held by 3 running jobs (0ff0ff0f, badcab1e, badcab)",
        STILL.format("off", "2 jobs still hold", "on"),
        [OPENER, JOB, JOB_2],
    ),
    (
        "on",
        [OPENER],
        "off  held by 1 running job (0ff0ff0f)",
        STILL.format("on", "1 job still holds", "off"),
        [SWITCH, OPENER],
    ),
    # By id, or its first characters
    ("cancel c0ffee", [ON, LATER], f"on for 2 h by alice: Bck{END}", "", [ON]),
    ("cancel decade0123456789", [BEGUN, LATER], f"off{PLAN}", "", [LATER]),
    ("release badcab1e01234567", [JOB, JOB_2], "on  held by 1 running job (badcab)", "", [JOB_2]),
    ("release badcab", [JOB, JOB_2], "on  held by 1 running job (badcab1e)", "", [JOB]),
    ("release badcab", [JOB], "off", "", []),
]


@pytest.mark.parametrize(("words", "before", "out", "notes", "after"), CASES)
def test_command_changes_the_switch_and_prints_it(
    words: str, before: Parts, out: str, notes: str, after: Parts
) -> None:
    write(just(*before))
    result = switch(*words.split())
    assert (result.exit_code, result.stdout, errors(result).rstrip()) == (0, f"{out}\n", notes)
    assert Path("switch").read_text().strip() == state_to_text(just(*after))


@pytest.mark.parametrize(("words", "text"), [("on", "1"), ("off", "0")])
def test_switch_without_details_is_one_digit_whatever_was_there(words: str, text: str) -> None:
    for before in ("garbage", state_to_text(just(replace(ON, ends_at=at(-1))))):
        Path("switch").write_text(before)
        assert switch(words).exit_code == 0
        assert Path("switch").read_text().strip() == text


@pytest.mark.parametrize(
    ("words", "starts_at", "ends_at", "lasting"),
    [
        ("--from 2030-01-01T22:00+09:00 --until 04:00", at(60), at(420), "6h"),  # 04:00 of the same zone
        ("--from 2030-01-01T13:00Z --for 90m", at(60), at(150), "1h30m"),
        ("--from 2030-01-01T13:00Z", at(60), None, None),
    ],
)
def test_plan_prints_the_window_with_its_id_and_changes_nothing_now(
    words: str, starts_at: object, ends_at: object, lasting: str | None
) -> None:
    write(just(ON))
    result = switch("plan", *words.split(), "-m", "New database", "--by", "bob")
    (window,) = state().windows
    until = f"  until {shown_time(window.ends_at)}, for {lasting}" if window.ends_at is not None else ""
    line = f"planned {window.id[:8]} by bob: New database  from {shown_time(at(60))}, in 1h{until}\n"
    assert (result.exit_code, result.stdout, errors(result)) == (0, line, "")
    assert (window.starts_at, window.ends_at, window.since) == (starts_at, ends_at, NOW)
    assert state().switch == ON


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("on --for soon", 2, "--for: 'soon' is not a duration above zero, such as 90s"),
        ("on --for 9999999d", 2, "--for: '9999999d' ends after the year 9999"),
        ("on --until 25:00", 2, "--until: '25:00' is not a time such as 22:00"),
        ("on --until 2001-01-01T00:00Z", 2, "--until must be in the future, got 2001-01-01T00:00:00+00:00"),
        ("on --for 1h --until 22:00", 2, "give only one of --for and --until"),
        ("on --for 1h --no-end", 2, "give only one of --for and --no-end"),
        ("edit -m why --no-message", 2, "give only one of --message and --no-message"),
        ("edit", 2, "nothing to change: give --message, --no-message, --for, --until, --no-end or --by"),
        ("edit --until 2001-01-01T00:00Z", 2, "--until must be in the future"),
        ("edit --no-end", 1, "maintenance is off; use `on`"),
        ("on --from 22:00", 2, "--from belongs to `plan`; `on` begins now"),
        ("on --drain soon", 2, "--drain: 'soon' is not a duration"),
        ("on -m " + "x" * 5_000, 2, "message must be at most 4096 characters long, got 5000"),
        ("plan --from x", 2, "--from: 'x' is not a time"),
        ("plan --from 2001-01-01", 2, "--from must be in the future"),
        ("plan --from 2101-01-02 --until 2101-01-01", 2, "--until must be after --from"),
        ("plan --from 9999-12-30 --for 9d", 2, "--for: '9d' ends after the year 9999"),
        ("cancel c0ffee", 1, "no window has the id 'c0ffee'"),
        ("release badcab1e", 1, "no hold has the id 'badcab1e'"),
        ("run --lease 0s -- true", 2, "--lease: '0s' is not a duration"),
        ("run --drain 0s -- true", 2, "--drain: '0s' is not a duration"),
        ("run --expect 9999999d -- true", 2, "--expect: '9999999d' ends after the year 9999"),
        ("on --switch bills", 2, "--switch chooses among those of an app; a URL names one by itself"),
        *(
            (words.format(option), 2, text)
            for words in ("on {}", "run {} -- touch ran")
            for option, text in {
                "--workers 2": "--workers needs --drain: it says how many processes have to confirm",
                "--drain 1s": "--drain must be at least 2 seconds on LocalFileBackend('switch'), got 1",
            }.items()
        ),
    ],
)
def test_wrong_usage_is_one_line_and_changes_nothing(words: str, status: int, text: str) -> None:
    result = switch(*words.split())
    assert (result.exit_code, len(errors(result).splitlines())) == (status, 1)
    assert errors(result).startswith(f"error: {text}")
    assert (state(), Path("ran").exists()) == (OFF, False)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (BEGUN, f"the switch is off, and the window {BEGUN.id} is in force; use `on`, which keeps its message and end"),
        (JOB, "the switch is off; use `on`"),
        (OPENER, "maintenance is off; use `on`"),
    ],
)
def test_edit_of_a_switch_that_is_off_says_what_is_on(part: Window | Hold, text: str) -> None:
    write(just(part))
    result = switch("edit", "-m", "why")
    assert (result.exit_code, state()) == (1, just(part))
    assert errors(result).startswith(f"error: {text}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c0ffe", f"'c0ffe' does not name one {{}}: {MORE}; it begins c0ffee0123456789, c0ffee1"),
        ("c0ffee02", "no {} has the id 'c0ffee02'"),
        ("c0ffee", f"'c0ffee' does not name one {{}}: {MORE}; it begins c0ffee0123456789, c0ffee1"),
        ("dec", f"'dec' does not name one {{}}: {MORE}; it begins decade"),
        ("", "no {} has the id ''"),
    ],
)
def test_id_that_is_not_that_of_one_part_changes_nothing(name: str, text: str) -> None:
    ids = "c0ffee0123456789", "c0ffee1", "decade"
    before = just(*(replace(LATER, id=one) for one in ids), *(replace(JOB, id=one) for one in ids))
    write(before)
    for word, kind in (("cancel", "window"), ("release", "hold")):
        result = switch(word, name)
        assert (result.exit_code, errors(result), state()) == (1, f"error: {text.format(kind)}\n", before)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("on -m why", "message"),
        ("on --for 1h", "--for"),
        ("on --until 22:00", "--until"),
        ("on --by alice", "by"),
        ("off --by alice", "by"),
        ("edit --no-end", "edit"),
        ("plan --from 22:00", "plan"),
        ("cancel c0ffee", "cancel"),
        ("release c0ffee", "release"),
        ("run --by alice -- touch ran", "by"),
        ("run --lease 30s -- touch ran", "lease"),
        ("run --expect 5m -- touch ran", "--expect"),
    ],
)
def test_bare_switch_refuses_what_it_cannot_keep(words: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)
    word, *others = words.split()
    result = command(word, *APP, *others)
    text = f"error: {first} needs a backend with the method update_state(change), which {backend!r} lacks\n"
    assert (result.exit_code, errors(result), Path("ran").exists(), backend.value) == (1, text, False, False)


@pytest.mark.parametrize("words", [["on"], ["on", "--no-end"], ["off"], ["run", "--", "true"]])
def test_bare_switch_can_be_set(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)
    result = command(words[0], *APP, *words[1:])
    assert (result.exit_code, errors(result)) == (0, "")
    assert anyio.run(backend.get_value) is (words[0] == "on")


@pytest.mark.parametrize(
    ("words", "text", "status"),
    [
        ("on --backend reddis://host", "backend must begin with one of env: file:", 2),
        ("on --backend file:no/such/folder/switch", "the store cannot be reached: FileNotFoundError", 1),
        ("on --backend redis://127.0.0.1:1", "the store cannot be reached: ConnectionError", 1),
        ("on --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("edit --no-end --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("release any --backend env:CLOSED", "the environment variable CLOSED cannot be switched at run time", 1),
        ("watch --backend redis://127.0.0.1:1", "the store cannot be reached: ConnectionError", 1),
    ],
)
def test_store_that_cannot_be_used_is_one_line(words: str, text: str, status: int) -> None:
    result = command(*words.split())
    assert (result.exit_code, result.stdout, len(errors(result).splitlines())) == (status, "", 1)
    assert errors(result).startswith(f"error: {text}")


@pytest.mark.parametrize("words", ["status", "edit --no-end", "plan --from 22:00", "release c0ffee"])
def test_invalid_state_is_not_wrong_usage(words: str) -> None:
    Path("switch").write_text("garbage", encoding="utf-8")
    result = switch(*words.split())
    assert result.exit_code == 1
    assert re.match(
        r"error: the stored value is not a valid state \(`on` and `off` overwrite it\): value", errors(result)
    )
