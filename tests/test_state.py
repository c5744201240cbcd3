"""`state`: valid values, the status at a moment, and the laws of changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text
from fastapi_maintenance.state import (
    Hold,
    MaintenanceState,
    MaintenanceStatus,
    Switch,
    Window,
    add_hold,
    add_window,
    cancel_window,
    edit_switch,
    next_change,
    open_holds,
    parts_in_force,
    release_hold,
    renew_hold,
    seconds_left,
    set_switch,
    stamped,
    status_of,
)
from tests.strategies import (
    NOW,
    PuttingBack,
    aware_times,
    holds_around_now,
    instant_of,
    messages,
    states_around_now,
    switches_around_now,
    times_around_now,
)

SECOND, HOUR, TICK = timedelta(seconds=1), timedelta(hours=1), timedelta.resolution
ON, OFF = Hold(id="on", on=True), Hold(id="off", on=False)
TONIGHT = Window(id="tonight", starts_at=NOW, ends_at=NOW + HOUR)
NEXT = Window(id="next", starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR)
PAST = Window(id="past", starts_at=NOW - HOUR, ends_at=NOW)
ALICE = Switch(by="alice", since=NOW - HOUR)
PARTS: dict[str, Callable[..., Any]] = {
    "switch": Switch,
    "window": lambda **fields: Window(**{"id": "a", "starts_at": NOW, **fields}),
    "hold": lambda **fields: Hold(**{"id": "a", "on": True, **fields}),
    "state": MaintenanceState,
}
TEXTS = [*((part, field) for part in ("switch", "window", "hold") for field in ("message", "by"))]
TEXTS += [("window", "id"), ("hold", "id")]
TIMES = [("switch", "ends_at"), ("switch", "since"), ("window", "starts_at"), ("window", "since")]
TIMES += [("hold", "ends_at"), ("hold", "expires_at"), ("hold", "since")]

new_holds = st.builds(Hold, id=st.just("new"), on=st.booleans(), message=messages)
"""Holds without expiry, of an id that no generated state has."""


def state_of(*parts: Switch | Window | Hold) -> MaintenanceState:
    """Return a state of these parts."""
    return MaintenanceState(
        switch=next((part for part in parts if isinstance(part, Switch)), Switch()),
        windows=tuple(part for part in parts if isinstance(part, Window)),
        holds=tuple(part for part in parts if isinstance(part, Hold)),
    )


# Valid values


def test_state_without_arguments_is_off() -> None:
    assert MaintenanceState() == MaintenanceState(switch=Switch(on=False), windows=(), holds=())
    assert status_of(MaintenanceState(), NOW) == MaintenanceStatus(active=False)


@pytest.mark.parametrize("part", [Switch(), TONIGHT, ON, MaintenanceState(), status_of(MaintenanceState(), NOW)])
def test_state_and_its_parts_cannot_be_changed(part: object) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(part, fields(part)[0].name, None)  # type: ignore[arg-type]  # a dataclass each


def test_state_with_lists_stores_tuples() -> None:
    state = MaintenanceState(windows=[TONIGHT], holds=[ON, OFF])  # type: ignore[arg-type]  # as without a type checker
    assert (state.windows, state.holds) == ((TONIGHT,), (ON, OFF))
    assert hash(state) == hash(state_of(TONIGHT, ON, OFF))


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("switch", "on", 1, "on must be True or False, got int 1"),
        ("switch", "on", None, "on must be True or False, got NoneType None"),
        ("switch", "message", b"x", "message must be a str, got bytes b'x'"),
        ("switch", "ends_at", date(2026, 3, 29), "ends_at must be a datetime or None, got date dat"),
        ("switch", "ends_at", datetime, "ends_at must be a datetime or None, got the class datetime"),
        ("switch", "by", 5, "by must be a str, got int 5"),
        ("switch", "since", "now", "since must be a datetime or None, got str 'now'"),
        ("window", "id", None, "id must be a str, got NoneType None"),
        ("window", "starts_at", "soon", "starts_at must be a datetime or None, got str 'soon'"),
        ("window", "starts_at", None, "starts_at must be a datetime, got NoneType None"),
        ("hold", "id", 1, "id must be a str, got int 1"),
        ("hold", "on", "yes", "on must be True or False, got str 'yes'"),
        ("hold", "ends_at", 5.0, "ends_at must be a datetime or None, got float 5.0"),
        ("hold", "expires_at", 5.0, "expires_at must be a datetime or None, got float 5.0"),
        ("state", "switch", True, "switch must be a Switch, got bool True"),
        ("state", "windows", "ab", "windows must be a tuple of Window, got str 'ab'"),
        ("state", "holds", (TONIGHT,), "holds must be a tuple of Hold, got tuple "),
        ("state", "holds", None, "holds must be a tuple of Hold, got NoneType None"),
    ],
)
def test_state_field_of_wrong_type_raises_naming_it(part: str, field: str, value: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        PARTS[part](**{field: value})
    assert str(caught.value)[: len(message)] == message


@pytest.mark.parametrize(
    ("part", "field", "value", "rule"),
    [
        ("window", "id", "", "not be empty, got ''"),
        ("hold", "id", "", "not be empty, got ''"),
        *((part, field, "ten \ud800", r"be text that UTF-8 can carry, got 'ten \\ud800'") for part, field in TEXTS),
        *((part, field, "x" * 4097, "be at most 4096 characters long, got 4097") for part, field in TEXTS),
        *(
            ("switch", "ends_at", time, r"lie between the years 1 and 9999 in UTC, got (0001-01-01|9999-12-31)T.*")
            for time in (
                datetime(1, 1, 1, tzinfo=timezone(HOUR)),
                datetime(9999, 12, 31, 23, tzinfo=timezone(-HOUR)),
            )
        ),
    ],
)
def test_state_field_with_invalid_value_raises_naming_it(part: str, field: str, value: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must {rule}$"):
        PARTS[part](**{field: value})


@pytest.mark.parametrize(("part", "field"), TEXTS)
def test_state_text_of_4096_characters_is_accepted(part: str, field: str) -> None:
    longest = "\U0001f6a7" * 4096
    assert getattr(PARTS[part](**{field: longest}), field) == longest
    assert len(state_to_text(MaintenanceState(switch=Switch(message=longest)))) < SIZE_LIMIT


@pytest.mark.parametrize(("part", "field"), TIMES)
@given(time=aware_times)
def test_state_time_is_converted_to_utc_and_refused_if_naive(part: str, field: str, time: datetime) -> None:
    kept = getattr(PARTS[part](**{field: time}), field)
    assert (kept, kept.tzinfo) == (instant_of(time).replace(tzinfo=UTC), UTC)
    naive = time.replace(tzinfo=None)
    rule = rf"^{field} must be an aware datetime \(with a time zone\), got the naive {naive.isoformat()}$"
    with pytest.raises(ValueError, match=rule):
        PARTS[part](**{field: naive})


@given(aware_times, aware_times)
@example(NOW, NOW)
@example(NOW, NOW + TICK)
@example(NOW, NOW.replace(hour=3, tzinfo=PuttingBack()))
@example(datetime(2026, 1, 1, tzinfo=PuttingBack()), datetime(2026, 1, 1, tzinfo=PuttingBack(), fold=1))
@example(datetime(2026, 1, 1, tzinfo=PuttingBack(), fold=1), datetime(2026, 1, 1, tzinfo=PuttingBack()))
def test_window_with_end_not_after_its_start_raises(starts_at: datetime, ends_at: datetime) -> None:
    if instant_of(ends_at) > instant_of(starts_at):
        assert Window(id="a", starts_at=starts_at, ends_at=ends_at).ends_at is not None
    else:
        with pytest.raises(ValueError, match=r"^ends_at must be after starts_at, got "):
            Window(id="a", starts_at=starts_at, ends_at=ends_at)


@given(states_around_now, st.randoms())
def test_state_windows_in_any_order_are_equal(state: MaintenanceState, random: Random) -> None:
    shuffled = list(state.windows)
    random.shuffle(shuffled)
    assert replace(state, windows=tuple(shuffled)) == state


# The status at a moment


@given(states_around_now, times_around_now)
def test_status_of_newest_open_hold_decides_else_switch_else_window(state: MaintenanceState, now: datetime) -> None:
    status = status_of(state, now)
    holds = [hold for hold in state.holds if hold.expires_at is None or hold.expires_at > now]
    windows = [one for one in state.windows if one.starts_at <= now and (one.ends_at is None or now < one.ends_at)]
    if holds:
        assert (status.decided_by, status.active) == (holds[-1], holds[-1].on)
    elif state.switch.on and (state.switch.ends_at is None or now < state.switch.ends_at):
        assert (status.decided_by, status.active) == (state.switch, True)
    elif windows:
        ends = {window.ends_at for window in windows}
        last = None if None in ends else max(end for end in ends if end is not None)
        assert status.active is True
        assert status.decided_by in [window for window in windows if window.ends_at == last]
    else:
        assert (status.decided_by, status.active) == (None, False)
    if not status.active:
        assert (status.message, status.ends_at) == (None, None)


@given(states_around_now, times_around_now)
@example(state_of(replace(ON, ends_at=NOW), replace(TONIGHT, starts_at=NOW + TICK)), NOW)
@example(state_of(replace(ON, ends_at=NOW - SECOND), replace(ON, id="b", ends_at=NOW + SECOND)), NOW)
def test_status_of_is_constant_until_the_next_change(state: MaintenanceState, now: datetime) -> None:
    change = next_change(state, now)
    moments = {state.switch.ends_at, *(hold.expires_at for hold in state.holds)}
    moments |= {moment for window in state.windows for moment in (window.starts_at, window.ends_at)}
    assert change == min((moment for moment in moments if moment is not None and moment > now), default=None)
    for later in {now + TICK, now + SECOND, now + 2 * HOUR, (change or now + 2 * HOUR) - TICK}:
        if change is None or now <= later < change:
            assert status_of(state, later) == status_of(state, now)


@given(states_around_now, times_around_now)
def test_status_of_without_holds_ends_when_maintenance_is_off(state: MaintenanceState, now: datetime) -> None:
    state = replace(state, holds=())
    status = status_of(state, now)
    moments = [now]
    while (moment := next_change(state, moments[-1])) is not None:
        moments.append(moment)
    off = [moment for moment in moments if not status_of(state, moment).active]
    assert status.ends_at == (off[0] if status.active and off else None)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # It ends when its last part does.
        ([replace(ON, ends_at=NOW + HOUR)], {"ends_at": NOW + HOUR}),
        ([replace(ON, ends_at=NOW - HOUR)], {"ends_at": NOW - HOUR}),
        ([ON, replace(ON, id="b", ends_at=NOW + HOUR)], {"ends_at": None}),
        ([OFF, replace(ON, ends_at=NOW + HOUR)], {"ends_at": NOW + HOUR}),
        ([Switch(on=True), replace(ON, ends_at=NOW + HOUR)], {"ends_at": None}),
        ([TONIGHT, replace(ON, ends_at=NOW + SECOND)], {"ends_at": NOW + HOUR}),
        ([TONIGHT, replace(ON, ends_at=NOW + 2 * HOUR)], {"ends_at": NOW + 2 * HOUR}),
        ([replace(ON, expires_at=NOW + HOUR)], {"ends_at": None}),
        ([NEXT, TONIGHT], {"ends_at": NOW + 2 * HOUR}),
        # The window that ends last decides.
        ([TONIGHT, replace(NEXT, starts_at=NOW)], {"decided_by": replace(NEXT, starts_at=NOW)}),
        (
            [replace(TONIGHT, ends_at=None), replace(NEXT, starts_at=NOW)],
            {"decided_by": replace(TONIGHT, ends_at=None)},
        ),
        # It has the first message that counts.
        ([Switch(on=True, message="switch"), ON], {"message": "switch"}),
        ([Switch(on=True, message="switch"), replace(ON, message="hold")], {"message": "hold"}),
        ([Switch(on=True, message="switch"), replace(ON, message="")], {"message": ""}),
        ([Switch(on=True, message="switch"), replace(TONIGHT, message="window")], {"message": "switch"}),
        ([Switch(on=True), replace(TONIGHT, message="window")], {"message": "window"}),
        ([replace(TONIGHT, message="window"), ON], {"message": "window"}),
        ([replace(TONIGHT, starts_at=NOW + TICK, message="planned"), ON], {"message": None}),
        ([Switch(on=True, message="switch"), replace(OFF, message="hold")], {"message": None}),
        ([Switch(on=False, message="switch"), ON], {"message": None}),
        # It names who turned it on or off, and when.
        ([replace(ALICE, on=True)], {"by": "alice", "since": NOW - HOUR}),
        ([ALICE], {"by": "alice", "since": NOW - HOUR}),
        ([replace(ALICE, on=True, ends_at=NOW)], {"by": None, "since": NOW}),
        ([replace(TONIGHT, by="bob", since=NOW - HOUR)], {"by": "bob", "since": NOW}),
        ([ALICE, PAST], {"by": None, "since": NOW}),
        ([replace(ALICE, since=NOW), replace(PAST, ends_at=NOW - TICK)], {"by": "alice", "since": NOW}),
        ([replace(ALICE, on=True), replace(ON, by="job", since=NOW - SECOND)], {"by": "job", "since": NOW - SECOND}),
    ],
)
def test_status_of_details_come_from_the_parts_that_count(parts: list[Any], expected: dict[str, object]) -> None:
    status = status_of(state_of(*parts), NOW)
    assert {name: getattr(status, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [(TICK, 1), (SECOND, 1), (SECOND + TICK, 2), (timedelta(minutes=2), 120), (timedelta(0), 0), (-HOUR, 0)],
)
def test_seconds_left_are_whole_and_rounded_up(left: timedelta, expected: int) -> None:
    """RFC 9110 10.2.3: a client that waits for `Retry-After` finds that maintenance has ended."""
    assert seconds_left(MaintenanceStatus(active=True, ends_at=NOW + left), NOW) == expected
    assert seconds_left(MaintenanceStatus(active=True), NOW) is None


# Changes


def not_long_expired(state: MaintenanceState, now: datetime) -> tuple[Hold, ...]:
    """Return the holds that have not expired an hour ago: the clock of this host may be ahead."""
    return tuple(hold for hold in state.holds if hold.expires_at is None or hold.expires_at + HOUR > now)


@given(states_around_now, switches_around_now, times_around_now)
def test_set_switch_off_ends_windows_in_force(state: MaintenanceState, switch: Switch, now: datetime) -> None:
    after = set_switch(state, switch, now)
    assert (after.switch, after.holds) == (switch, not_long_expired(state, now))
    planned = [[window for window in each.windows if window.starts_at > now] for each in (after, state)]
    assert planned[0] == planned[1]
    in_force = parts_in_force(replace(state, switch=Switch()), now)
    assert parts_in_force(replace(after, switch=Switch()), now) == (in_force if switch.on else [])
    if not switch.on and not open_holds(state, now):
        assert status_of(after, now).active is False


@given(states_around_now, messages, times_around_now)
def test_edit_switch_keeps_fields_not_mentioned(state: MaintenanceState, message: str | None, now: datetime) -> None:
    assert edit_switch(state, {}, now) == state
    parts = parts_in_force(state, now)
    after = edit_switch(state, {"on": True, "message": message}, now).switch
    assert (after.on, after.message) == (True, message)
    assert after.ends_at == (parts[0].ends_at if parts else None)
    if state.switch in parts:
        assert after == stamped(replace(state.switch, message=message), state.switch.since)
        assert edit_switch(state, {"message": message}, now).switch == after
    elif not parts:
        assert after == Switch(on=True, message=message, since=None if message is None else now)


@given(states_around_now, times_around_now)
def test_edit_switch_off_clears_message_and_end(state: MaintenanceState, now: datetime) -> None:
    assert edit_switch(state, {"on": False}, now) == set_switch(state, Switch(), now)
    assert edit_switch(state, {"on": False, "by": "bob"}, now).switch == Switch(by="bob", since=now)


@pytest.mark.parametrize("windows", [(), (TONIGHT,)])
def test_edit_switch_while_off_raises(windows: tuple[Window, ...]) -> None:
    with pytest.raises(ValueError, match=r"^on must be true to change a switch that is off$"):
        edit_switch(state_of(Switch(on=True, ends_at=NOW), *windows), {"message": "x"}, NOW)


def test_edit_switch_on_over_a_window_keeps_its_message_and_end() -> None:
    state = state_of(replace(TONIGHT, message="New database", by="bob"))
    expected = Switch(on=True, message="New database", ends_at=TONIGHT.ends_at, since=NOW)
    assert edit_switch(state, {"on": True}, NOW).switch == expected


@given(states_around_now, times_around_now)
def test_add_window_planned_changes_nothing_now(state: MaintenanceState, now: datetime) -> None:
    planned = Window(id="new", starts_at=now + 48 * HOUR)
    after = add_window(state, planned, now)
    before, status = status_of(state, now), status_of(after, now)
    assert replace(status, next_window=None, ends_at=None) == replace(before, next_window=None, ends_at=None)
    assert status.next_window == (before.next_window or planned)
    assert (after.switch, after.holds, planned in after.windows) == (state.switch, state.holds, True)
    assert [one for one in cancel_window(after, "new", now).windows if one not in state.windows] == []
    assert add_window(after, planned, planned.starts_at + HOUR).windows.count(planned) == 1  # as a lost reply causes
    moved = replace(planned, message="moved")
    assert add_window(after, moved, now) == add_window(state, moved, now)


@pytest.mark.parametrize("starts_at", [NOW, NOW - HOUR])
def test_add_window_that_has_started_raises(starts_at: datetime) -> None:
    with pytest.raises(ValueError, match=rf"^starts_at must be in the future, got {starts_at.isoformat()[:19]}"):
        add_window(MaintenanceState(), Window(id="a", starts_at=starts_at), NOW)


@given(states_around_now, times_around_now)
def test_cancel_window_removes_it_and_keeps_the_last_ended_one(state: MaintenanceState, now: datetime) -> None:
    def ended(state: MaintenanceState) -> list[Window]:
        return [one for one in state.windows if one.ends_at is not None and one.ends_at <= now]

    for window in state.windows:
        after = cancel_window(state, window.id, now)
        assert window not in after.windows
        others = [one for one in state.windows if one != window and one not in ended(state)]
        assert [one for one in after.windows if one not in ended(state)] == others
        assert len(ended(after)) <= 1
        last = max(ended(state), key=lambda one: (one.ends_at or now, one.id), default=window)
        assert window == last or last in after.windows  # it shows since when maintenance is off
    assert cancel_window(state, "unknown", now).holds == state.holds


@given(states_around_now, times_around_now, new_holds, holds_around_now)
@example(state_of(replace(ON, expires_at=NOW - HOUR)), NOW, OFF, ON)
def test_add_hold_is_the_newest_and_drops_those_expired_an_hour_ago(
    state: MaintenanceState, now: datetime, hold: Hold, again: Hold
) -> None:
    after = add_hold(state, hold, now)
    assert after == replace(state, holds=(*not_long_expired(state, now), hold))
    assert status_of(after, now).decided_by == hold
    once = add_hold(state, again, now)
    assert ([one.id for one in once.holds].count(again.id), once.holds[-1]) == (1, again)


@given(states_around_now, times_around_now, holds_around_now)
def test_renew_hold_keeps_its_place(state: MaintenanceState, expires_at: datetime, other: Hold) -> None:
    for place, hold in enumerate(state.holds):
        renewed = replace(hold, expires_at=expires_at)
        after = renew_hold(state, renewed)
        assert after.holds == (*state.holds[:place], renewed, *state.holds[place + 1 :])
        assert renew_hold(after, renewed) == after
    once = renew_hold(state, other)
    assert renew_hold(once, other) == once


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True), st.data())
def test_renew_hold_that_was_lost_restores_its_place(ages: list[int], data: st.DataObject) -> None:
    holds = tuple(Hold(id=str(age), on=True, since=NOW + age * SECOND) for age in sorted(ages))
    lost = data.draw(st.sampled_from(holds))
    assert renew_hold(release_hold(state_of(*holds), lost.id), lost).holds == holds


def test_renew_hold_of_unknown_age_is_the_oldest() -> None:
    """It must not overrule others: it may be older."""
    assert renew_hold(state_of(OFF), ON).holds == (ON, OFF)
    dated = replace(ON, since=NOW)
    assert renew_hold(state_of(OFF), dated).holds == (OFF, dated)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["begin", "switch"]), st.booleans()),
    st.tuples(st.sampled_from(["end", "renew"]), st.integers(0, 5)),
)


@given(states_around_now, st.lists(STEPS, max_size=20))
@example(MaintenanceState(), [("begin", True), ("begin", True), ("end", 0)])
@example(MaintenanceState(), [("begin", True), ("switch", True), ("end", 0)])
def test_holds_in_any_order_leave_switch_and_windows(before: MaintenanceState, steps: list[tuple[str, int]]) -> None:
    """In whatever order jobs begin and end, the newest decides, and the last one leaves the state as it was."""
    state = before = replace(before, holds=())
    jobs: dict[str, bool] = {}
    for number, (step, detail) in enumerate(steps):
        if step == "begin":
            jobs[str(number)] = bool(detail)
            state = add_hold(state, Hold(id=str(number), on=bool(detail), since=NOW + number * SECOND), NOW)
        elif step == "switch":
            state, before = (set_switch(each, Switch(on=bool(detail)), NOW) for each in (state, before))
        elif jobs:
            job = list(jobs)[detail % len(jobs)]
            if step == "end":
                del jobs[job]
                state = release_hold(state, job)
            else:
                state = renew_hold(state, Hold(id=job, on=jobs[job], expires_at=NOW + HOUR))
        assert [hold.id for hold in state.holds] == list(jobs)
        assert status_of(state, NOW).active == (list(jobs.values())[-1] if jobs else status_of(before, NOW).active)
    for job in list(jobs):
        state = release_hold(state, job)
    assert state == before
