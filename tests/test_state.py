"""The state of maintenance: what makes one, what it says at a moment, and the laws of its changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text
from fastapi_maintenance.state import (
    Hold,
    MaintenanceState,
    Switch,
    add_hold,
    current_author,
    current_message,
    newest_hold,
    next_change,
    release_hold,
    renew_hold,
    seconds_left,
    status_of,
    switch,
    what_counts,
)
from tests.strategies import (
    NOW,
    PuttingBack,
    aware_times,
    holds_around_now,
    instant_of,
    messages,
    states_around_now,
    times_around_now,
)

SECOND = timedelta(seconds=1)
TICK = timedelta.resolution
ON = Hold(id="on", on=True)
OFF = Hold(id="off", on=False)

new_holds = st.builds(Hold, id=st.just("new"), active=st.booleans(), message=messages)
"""Holds without expiry, of an id that no generated state has."""


# What makes a state


def test_a_state_is_off_with_nothing_to_say_unless_told_otherwise() -> None:
    expected = MaintenanceState(active=False, message=None, starts_at=None, ends_at=None, holds=())
    assert expected == MaintenanceState()
    assert Hold(id="a", on=True, message=None, expires_at=None) == Hold(id="a", on=True)


def test_states_and_holds_never_change() -> None:
    with pytest.raises(FrozenInstanceError):
        MaintenanceState().active = True  # type: ignore[misc]  # the error under test
    with pytest.raises(FrozenInstanceError):
        ON.active = False  # type: ignore[misc]  # the error under test


def test_holds_given_as_a_list_are_kept_as_a_tuple_so_that_a_state_can_be_hashed() -> None:
    state = MaintenanceState(holds=[ON, OFF])  # type: ignore[arg-type]  # what a caller without a type checker does
    assert state.holds == (ON, OFF)
    assert hash(MaintenanceState(holds=(ON, OFF))) == hash(state)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("active", 1, "active must be True or False, got int 1"),
        ("active", None, "active must be True or False, got NoneType None"),
        ("active", "on", "active must be True or False, got str 'on'"),
        ("message", b"x", "message must be a str, got bytes b'x'"),
        ("starts_at", "soon", "starts_at must be a datetime or None, got str 'soon'"),
        ("starts_at", 0, "starts_at must be a datetime or None, got int 0"),
        ("ends_at", date(2026, 3, 29), "ends_at must be a datetime or None, got date datetime.date(2026, 3, 29)"),
        ("ends_at", datetime, "ends_at must be a datetime or None, got the class datetime"),
        ("holds", "ab", "holds must be a tuple of Hold, got str 'ab'"),
        ("holds", ("a",), "holds must be a tuple of Hold, got tuple ('a',)"),
        ("holds", None, "holds must be a tuple of Hold, got NoneType None"),
        ("holds", 5, "holds must be a tuple of Hold, got int 5"),
        ("by", 5, "by must be a str, got int 5"),
        ("since", "now", "since must be a datetime or None, got str 'now'"),
    ],
)
def test_a_field_of_the_wrong_type_is_a_type_error_that_names_field_value_and_rule(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        MaintenanceState(**{field: value})  # type: ignore[arg-type]  # the error under test

    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": 1, "active": True}, "id must be a str, got int 1"),
        ({"id": None, "active": True}, "id must be a str, got NoneType None"),
        ({"id": "a", "active": "yes"}, "active must be True or False, got str 'yes'"),
        ({"id": "a", "active": True, "message": 5}, "message must be a str, got int 5"),
        ({"id": "a", "active": True, "expires_at": 5.0}, "expires_at must be a datetime or None, got float 5.0"),
        ({"id": "a", "active": True, "by": 5}, "by must be a str, got int 5"),
        ({"id": "a", "active": True, "since": 5}, "since must be a datetime or None, got int 5"),
    ],
)
def test_a_hold_with_a_field_of_the_wrong_type_is_a_type_error(fields: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        Hold(**fields)  # type: ignore[arg-type]  # the error under test

    assert message == str(caught.value)


def test_a_hold_needs_an_id() -> None:
    with pytest.raises(ValueError, match=r"^id must be a str that is not empty, got ''$"):
        Hold(id="", on=True)


@pytest.mark.parametrize("text", ["\ud800", "Back at ten \udfff"])
def test_text_that_utf_8_cannot_carry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^message must be text that UTF-8 can carry, got '.*\\ud[8f].*'$"):
        MaintenanceState(switch=Switch(message=text))
    with pytest.raises(ValueError, match=r"^message must be text that UTF-8 can carry, got "):
        Hold(id="a", on=True, message=text)
    with pytest.raises(ValueError, match=r"^id must be text that UTF-8 can carry, got "):
        Hold(id=text, on=True)


def test_a_text_may_be_4096_characters_long_and_no_longer() -> None:
    longest = "\U0001f6a7" * 4096
    assert (
        longest
        == MaintenanceState(switch=Switch(message=longest)).message
        == Hold(id=longest, on=True, message=longest).id
    )
    assert len(state_to_text(MaintenanceState(switch=Switch(message=longest)))) < SIZE_LIMIT
    for make, name in (
        (lambda text: MaintenanceState(switch=Switch(message=text)), "message"),
        (lambda text: Hold(id="a", on=True, message=text), "message"),
        (lambda text: Hold(id=text, on=True), "id"),
        (lambda text: MaintenanceState(switch=Switch(by=text)), "by"),
        (lambda text: Hold(id="a", on=True, by=text), "by"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be at most 4096 characters long, got 4097$"):
            make(longest + "!")


@given(aware_times.map(lambda time: time.replace(tzinfo=None)))
def test_naive_datetimes_are_refused(time: datetime) -> None:
    rule = rf"must be an aware datetime \(with a time zone\), got the naive {time.isoformat()}$"
    with pytest.raises(ValueError, match=f"^starts_at {rule}"):
        MaintenanceState(starts_at=time)
    with pytest.raises(ValueError, match=f"^ends_at {rule}"):
        MaintenanceState(switch=Switch(ends_at=time))
    with pytest.raises(ValueError, match=f"^expires_at {rule}"):
        Hold(id="a", on=True, expires_at=time)


@given(aware_times, aware_times)
@example(NOW, NOW)
@example(NOW, NOW + TICK)
@example(NOW, NOW.replace(hour=3, tzinfo=PuttingBack()))
@example(datetime(2026, 1, 1, tzinfo=PuttingBack()), datetime(2026, 1, 1, tzinfo=PuttingBack(), fold=1))
@example(datetime(2026, 1, 1, tzinfo=PuttingBack(), fold=1), datetime(2026, 1, 1, tzinfo=PuttingBack()))
def test_an_end_that_is_not_after_its_start_is_refused(starts_at: datetime, ends_at: datetime) -> None:
    if instant_of(ends_at) > instant_of(starts_at):
        assert MaintenanceState(starts_at=starts_at, ends_at=ends_at).ends_at is not None
    else:
        with pytest.raises(ValueError, match=r"^ends_at must be after starts_at, got "):
            MaintenanceState(starts_at=starts_at, ends_at=ends_at)


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_a_time_without_a_date_in_utc_is_refused(time: datetime) -> None:
    with pytest.raises(
        ValueError, match=r"^starts_at must lie between the years 1 and 9999 in UTC, got (0001-01-01|9999-12-31)T"
    ):
        MaintenanceState(starts_at=time)


@given(aware_times)
def test_every_time_is_kept_as_its_instant_in_utc(time: datetime) -> None:
    kept = [
        MaintenanceState(starts_at=time).starts_at,
        MaintenanceState(switch=Switch(ends_at=time)).ends_at,
        Hold(id="a", on=True, expires_at=time).expires_at,
    ]
    expected = instant_of(time).replace(tzinfo=UTC)
    assert [expected] * 3 == kept
    assert all(it is not None and it.tzinfo is UTC for it in kept)


# What a state says at a moment


@given(st.booleans(), aware_times)
def test_without_window_and_holds_the_switch_says_it_all(active: bool, now: datetime) -> None:
    assert active is status_of(MaintenanceState(switch=Switch(on=active)), now).active


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - TICK, False),
        (NOW, True),
        (NOW + SECOND - TICK, True),
        (NOW + SECOND, False),
    ],
)
def test_a_window_counts_from_its_start_on_until_just_before_its_end(now: datetime, *, expected: bool) -> None:
    window = MaintenanceState(active=True, starts_at=NOW, ends_at=NOW + SECOND)
    assert expected is status_of(window, now).active
    assert not status_of(replace(window, active=False), now).active


@given(states_around_now, times_around_now)
def test_a_state_is_active_as_its_newest_open_hold_says_else_as_its_switch_does_in_its_window(
    state: MaintenanceState, now: datetime
) -> None:
    open_holds = [hold for hold in state.holds if hold.expires_at is None or hold.expires_at > now]
    in_window = (state.starts_at is None or now >= state.starts_at) and (state.ends_at is None or now < state.ends_at)
    assert (open_holds[-1] if open_holds else None) == newest_hold(state, now)
    assert (open_holds[-1].active if open_holds else state.switch.on and in_window) is status_of(state, now).active


def test_a_hold_decides_whatever_the_switch_and_its_window_say() -> None:
    ended = MaintenanceState(switch=Switch(on=True, ends_at=NOW), holds=(ON,))
    assert status_of(ended, NOW).active
    assert not status_of(replace(ended, ends_at=None, holds=(OFF,)), NOW).active


def test_a_hold_counts_until_just_before_it_expires() -> None:
    state = MaintenanceState(holds=(OFF, Hold(id="a", on=True, expires_at=NOW)))
    assert [status_of(state, NOW - TICK).active, status_of(state, NOW).active] == [True, False]
    assert newest_hold(state, NOW) == OFF


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ((), "operator's"),
        ((ON,), "operator's"),
        ((replace(ON, message="older"), replace(OFF, message="newer")), "newer"),
        ((replace(ON, message="older"), OFF), "operator's"),
        ((replace(ON, message=""),), ""),
        ((replace(ON, message="expired", expires_at=NOW),), "operator's"),
    ],
)
def test_the_message_is_that_of_the_deciding_hold_if_it_has_one_else_the_operators(
    held: tuple[Hold, ...], expected: str
) -> None:
    assert expected == current_message(MaintenanceState(switch=Switch(on=True, message="operator's"), holds=held), NOW)


def test_a_hold_before_a_window_tells_nothing_of_it() -> None:
    planned = MaintenanceState(active=True, message="operator's", starts_at=NOW, holds=(ON,))
    assert [current_message(planned, NOW - TICK), current_message(planned, NOW)] == [None, "operator's"]


def test_who_decides_is_the_newest_hold_until_it_expires_and_then_the_operator() -> None:
    hold = replace(ON, by="a job", expires_at=NOW)
    state = MaintenanceState(switch=Switch(by="alice"), holds=(OFF, hold))
    assert [hold, OFF] == [current_author(state, NOW - TICK), current_author(state, NOW)]
    assert replace(state, holds=()) == current_author(replace(state, holds=()), NOW)


@pytest.mark.parametrize(
    ("state", "same", "others"),
    [
        (
            MaintenanceState(holds=(replace(ON, expires_at=NOW + SECOND),)),
            [MaintenanceState(holds=(replace(ON, expires_at=NOW + 2 * SECOND),)), MaintenanceState(holds=(ON,))],
            [MaintenanceState(), MaintenanceState(holds=(OFF,)), MaintenanceState(holds=(replace(ON, message="!"),))],
        ),
        (
            MaintenanceState(switch=Switch(message="soon")),
            [MaintenanceState(switch=Switch(message="soon"), holds=(replace(ON, expires_at=NOW),))],
            [MaintenanceState(switch=Switch(message="now")), MaintenanceState(switch=Switch(on=True, message="soon"))],
        ),
    ],
)
def test_what_counts_is_the_same_where_only_a_lease_is_renewed_or_over(
    state: MaintenanceState, same: list[MaintenanceState], others: list[MaintenanceState]
) -> None:
    assert [what_counts(state, NOW)] * len(same) == [what_counts(one, NOW) for one in same]
    assert what_counts(state, NOW) not in [what_counts(one, NOW) for one in others]


def test_when_a_window_begins_or_ends_something_else_counts() -> None:
    state = MaintenanceState(active=True, starts_at=NOW, ends_at=NOW + SECOND)
    told = [what_counts(state, NOW + seconds * SECOND)[0] for seconds in (-1, 0, 1)]
    assert told == [False, True, False]


@given(states_around_now, times_around_now)
@example(MaintenanceState(starts_at=NOW, ends_at=NOW + SECOND), NOW)
@example(MaintenanceState(switch=Switch(ends_at=NOW), holds=(replace(ON, expires_at=NOW + SECOND), OFF)), NOW - TICK)
def test_the_next_change_is_the_first_moment_that_is_still_to_come(state: MaintenanceState, now: datetime) -> None:
    moments = {state.starts_at, state.ends_at, *(hold.expires_at for hold in state.holds)}
    coming = [moment for moment in moments if moment is not None and now < moment]
    assert min(coming, default=None) == next_change(state, now)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (TICK, 1),
        (SECOND - TICK, 1),
        (SECOND, 1),
        (SECOND + TICK, 2),
        (timedelta(minutes=2), 120),
        (timedelta(days=365, microseconds=1), 365 * 86_400 + 1),
    ],
)
def test_the_seconds_left_are_whole_and_at_least_one(left: timedelta, expected: int) -> None:
    """RFC 9110 10.2.3: `Retry-After` is a whole number; who comes back after it finds the maintenance ended."""
    assert expected == seconds_left(MaintenanceState(switch=Switch(on=True, ends_at=NOW + left)), NOW)


@pytest.mark.parametrize(
    "state",
    [
        MaintenanceState(switch=Switch(on=True)),
        MaintenanceState(switch=Switch(on=False, ends_at=NOW + SECOND)),
        MaintenanceState(active=True, starts_at=NOW + TICK, ends_at=NOW + SECOND),
        MaintenanceState(switch=Switch(on=True, ends_at=NOW)),
        MaintenanceState(switch=Switch(on=True, ends_at=NOW + SECOND), holds=(ON,)),
        MaintenanceState(switch=Switch(on=True, ends_at=NOW + SECOND), holds=(OFF,)),
        MaintenanceState(holds=(replace(ON, expires_at=NOW + SECOND),)),
    ],
)
def test_no_seconds_are_left_where_the_end_is_not_known(state: MaintenanceState) -> None:
    """A hold ends when its block does, and an expiry that is renewed is no end."""
    assert seconds_left(state, NOW) is None


@given(states_around_now, times_around_now)
def test_after_the_seconds_left_the_maintenance_has_ended_and_a_second_before_it_had_not(
    state: MaintenanceState, now: datetime
) -> None:
    seconds = seconds_left(state, now)
    if seconds is not None:
        assert seconds >= 1
        alone = replace(state, holds=())
        assert not status_of(alone, now + seconds * SECOND).active
        assert status_of(alone, now + (seconds - 1) * SECOND).active


# Changes


@given(states_around_now, states_around_now)
def test_the_operator_sets_the_switch_anew_and_open_holds_stay(
    before: MaintenanceState, wanted: MaintenanceState
) -> None:
    after = switch(
        before,
        active=wanted.active,
        message=wanted.message,
        starts_at=wanted.starts_at,
        ends_at=wanted.ends_at,
    )
    assert replace(wanted, holds=before.holds) == after


@given(states_around_now)
def test_a_switch_without_details_forgets_the_old_ones(state: MaintenanceState) -> None:
    assert MaintenanceState(switch=Switch(on=True), holds=state.holds) == switch(state, active=True)


@given(states_around_now, times_around_now, new_holds)
def test_a_new_hold_decides_at_once(state: MaintenanceState, now: datetime, hold: Hold) -> None:
    assert hold.on is status_of(add_hold(state, hold, now), now).active


@given(states_around_now, times_around_now, new_holds)
@example(MaintenanceState(holds=(replace(ON, expires_at=NOW - 3600 * SECOND),)), NOW, OFF)
def test_adding_a_hold_drops_those_that_expired_an_hour_ago_and_nothing_else(
    state: MaintenanceState, now: datetime, hold: Hold
) -> None:
    """Not those that have just expired: the clock of the host that adds one may be ahead."""
    hour = timedelta(hours=1)
    left = tuple(it for it in state.holds if it.expires_at is None or it.expires_at + hour > now)
    assert replace(state, holds=(*left, hold)) == add_hold(state, hold, now)


@given(states_around_now, times_around_now, holds_around_now)
def test_adding_a_hold_again_makes_it_the_newest_and_keeps_it_once(
    state: MaintenanceState, now: datetime, hold: Hold
) -> None:
    once = add_hold(state, hold, now)
    assert once.holds[-1] == hold
    assert [it.id for it in once.holds].count(hold.id) == 1
    assert add_hold(once, hold, now).holds[-1] == hold


@given(states_around_now, new_holds)
def test_releasing_what_was_added_gives_back_the_state(state: MaintenanceState, hold: Hold) -> None:
    before_all_expiries = datetime(1, 1, 1, tzinfo=UTC)
    assert state == release_hold(add_hold(state, hold, before_all_expiries), hold.id)


@given(states_around_now, new_holds)
def test_releasing_a_hold_that_is_not_there_changes_nothing(state: MaintenanceState, hold: Hold) -> None:
    assert state == release_hold(state, hold.id)
    assert release_hold(release_hold(state, "a"), "a") == release_hold(state, "a")


@given(st.data(), states_around_now)
def test_holds_may_be_released_in_any_order(data: st.DataObject, state: MaintenanceState) -> None:
    """While any is open the newest of those decides; after the last one the switch does."""
    left = [hold.id for hold in state.holds]
    while left:
        released = data.draw(st.sampled_from(left))
        left.remove(released)
        state = release_hold(state, released)
        assert left == [hold.id for hold in state.holds]
    assert state.holds == ()


@given(states_around_now, holds_around_now, times_around_now)
def test_renewing_a_hold_keeps_its_place(state: MaintenanceState, other: Hold, expires_at: datetime) -> None:
    for place, hold in enumerate(state.holds):
        renewed = replace(hold, expires_at=expires_at)
        after = renew_hold(state, renewed)
        assert (*state.holds[:place], renewed, *state.holds[place + 1 :]) == after.holds
        assert after == renew_hold(after, renewed)
    once = renew_hold(state, other)
    assert once == renew_hold(once, other)


@given(states_around_now, new_holds)
def test_renewing_a_hold_that_was_dropped_brings_it_back_as_the_oldest(state: MaintenanceState, hold: Hold) -> None:
    """Its block is still open, but nobody knows how old the others are: it must not overrule them."""
    assert replace(state, holds=(hold, *state.holds)) == renew_hold(state, hold)


# Jobs that overlap

STEPS = st.one_of(
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("renew"), st.integers(0, 5)),
    st.tuples(st.just("switch"), st.booleans()),
)


@given(st.booleans(), st.lists(STEPS, max_size=20))
@example(False, [("begin", True), ("begin", True), ("end", 0)])
@example(False, [("begin", True), ("switch", True), ("end", 0)])
def test_overlapping_jobs_never_lift_each_others_maintenance_and_the_operators_change_is_kept(
    active: bool,
    steps: list[tuple[str, int]],
) -> None:
    """Whatever the order in which jobs begin and end: the newest open one decides, and after the last the operator."""
    state = MaintenanceState(switch=Switch(on=active))
    jobs: dict[str, bool] = {}
    for number, (step, detail) in enumerate(steps):
        if step == "begin":
            jobs[str(number)] = bool(detail)
            state = add_hold(state, Hold(id=str(number), on=bool(detail)), NOW)
        elif step == "switch":
            active = bool(detail)
            state = switch(state, active=active)
        elif jobs:
            job = list(jobs)[detail % len(jobs)]
            if step == "end":
                del jobs[job]
                state = release_hold(state, job)
            else:
                state = renew_hold(state, Hold(id=job, on=jobs[job], expires_at=NOW + SECOND))

        assert list(jobs.values())[-1:] == [hold.on for hold in state.holds[-1:]]
        assert (list(jobs.values())[-1] if jobs else active) is status_of(state, NOW).active
    for job in jobs:
        state = release_hold(state, job)
    assert MaintenanceState(switch=Switch(on=active)) == state
