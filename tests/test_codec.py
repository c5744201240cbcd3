"""`codec`: booleans and states from and to text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.codec import bool_to_str, state_to_text, str_to_bool, text_to_state
from fastapi_maintenance.errors import InvalidStateError, MaintenanceError
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window
from tests.strategies import (
    OFF_WORDS,
    ON_WORDS,
    any_text,
    aware_times,
    instant_of,
    json_values,
    state_like_objects,
    state_of_size,
    states,
    states_around_now,
    words,
)

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
FULL = MaintenanceState(
    switch=Switch(on=True, message="Back at ten", ends_at=NOON.replace(hour=13), by="alice", since=NOON),
    windows=(Window(id="w", starts_at=NOON.replace(hour=22), message="New database"),),
    holds=(
        Hold(id="a", on=True, message="Copying", expires_at=NOON.replace(second=1)),
        Hold(id="b", on=False),
    ),
)
FULL_TEXT = (
    '{"switch": {"on": true, "message": "Back at ten", "ends_at": "2026-03-29T13:00:00+00:00", "by": "alice",'
    ' "since": "2026-03-29T12:00:00+00:00"}, "windows": [{"id": "w", "starts_at": "2026-03-29T22:00:00+00:00",'
    ' "message": "New database"}], "holds": [{"id": "a", "on": true, "message": "Copying",'
    ' "expires_at": "2026-03-29T12:00:01+00:00"}, {"id": "b", "on": false}]}'
)


def state_or_none(text: str) -> MaintenanceState | None:
    """Return the state, or None if the text is refused with an error that can be logged."""
    try:
        return text_to_state(text)
    except InvalidStateError as error:
        str(error).encode()
        return None


@given(words(ON_WORDS), words(OFF_WORDS))
def test_str_to_bool_word_in_any_case_and_with_spaces_is_a_boolean(on: str, off: str) -> None:
    assert (str_to_bool(on), str_to_bool(off)) == (True, False)
    assert [text_to_state(word) for word in (on, off)] == [MaintenanceState(switch=Switch(on=True)), MaintenanceState()]


@given(
    any_text | st.sampled_from(("enabled", "2", "-1", "1.0", "01", "tru e", "1 0", "none", "null", "'1'", "\ufeff1"))
)
def test_str_to_bool_other_text_raises_showing_the_value(text: str) -> None:
    if text.strip().lower() in {*ON_WORDS, *OFF_WORDS}:
        return
    with pytest.raises(InvalidStateError) as caught:
        str_to_bool(text)
    assert isinstance(caught.value, (ValueError, MaintenanceError))
    assert str(caught.value) == f"value must be one of 1 on t true y yes (on) or 0 off f false n no (off), got {text!r}"


@pytest.mark.parametrize("value", [None, True, 1, b"1", ["1"]])
@pytest.mark.parametrize(("function", "name"), [(str_to_bool, "value"), (text_to_state, "text")])
def test_codec_value_not_a_str_raises_naming_it(function: Callable[[Any], object], name: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be a str, got "):
        function(value)


def without_lone_since(state: MaintenanceState) -> MaintenanceState:
    """Return the state without the `since` of a switch that has no other details."""
    bare = Switch(on=state.switch.on, since=state.switch.since)
    return MaintenanceState(switch=replace(bare, since=None)) if state == MaintenanceState(switch=bare) else state


@given(states)
def test_state_to_text_is_read_back_as_an_equal_state(state: MaintenanceState) -> None:
    assert text_to_state(state_to_text(state)) == without_lone_since(state)


@given(states_around_now)
@example(MaintenanceState(switch=Switch(on=True, since=NOON)))
def test_state_to_text_is_one_line_of_ascii_and_a_digit_without_details(state: MaintenanceState) -> None:
    text = state_to_text(state)
    assert (text.isascii(), text.splitlines()) == (True, [text])
    is_plain = without_lone_since(state) == MaintenanceState(switch=Switch(on=state.switch.on))
    assert (text in {"0", "1"}) == is_plain


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (MaintenanceState(), "0"),
        (MaintenanceState(switch=Switch(on=True)), "1"),
        (MaintenanceState(switch=Switch(message="")), '{"switch": {"on": false, "message": ""}}'),
        (FULL, FULL_TEXT),
    ],
)
def test_state_to_text_is_what_other_versions_read(state: MaintenanceState, text: str) -> None:
    assert state_to_text(state) == text
    assert text_to_state(text) == state


def test_state_to_text_of_more_than_65535_bytes_raises() -> None:
    biggest = state_of_size(65_535)
    assert len(state_to_text(biggest).encode()) == 65_535
    assert text_to_state(state_to_text(biggest)) == biggest
    rule = "a state must take at most 65535 bytes as text, got 65536: shorten messages, cancel windows, release holds"
    with pytest.raises(ValueError, match=f"^{rule}$"):
        state_to_text(state_of_size(65_536))


@given(states, st.dictionaries(any_text, json_values, max_size=3))
def test_text_to_state_ignores_unknown_fields(state: MaintenanceState, unknown: dict[str, object]) -> None:
    parts: dict[str, Any] = {"switch": [state.switch], "windows": state.windows, "holds": state.holds}
    whole: dict[str, Any] = {
        name: [{**unknown, **asdict(part)} for part in values]  # with nulls, which another version may write
        for name, values in parts.items()
    }
    text = json.dumps({**unknown, **whole, "switch": whole["switch"][0]}, default=datetime.isoformat)
    assert text_to_state(text) == state


@pytest.mark.parametrize("text", ["1", " Yes\r\n", '{"switch": {"on": true}}', ' \n {"switch": {"on": true}} \n'])
def test_text_to_state_skips_a_byte_order_mark(text: str) -> None:
    assert text_to_state("\ufeff" + text) == MaintenanceState(switch=Switch(on=True))


@pytest.mark.parametrize("zone", ["Z", "z", "+00:00", "-00:00"])
def test_text_to_state_reads_utc_as_rfc_3339_has_it(zone: str) -> None:
    text = json.dumps({"switch": {"on": True, "ends_at": f"2026-03-29T12:00:00{zone}"}})
    assert text_to_state(text) == MaintenanceState(switch=Switch(on=True, ends_at=NOON))


@given(aware_times)
def test_text_to_state_reads_a_time_of_any_zone_as_its_instant(time: datetime) -> None:
    ends_at = text_to_state(json.dumps({"switch": {"on": True, "ends_at": time.isoformat()}})).switch.ends_at
    assert ends_at is not None
    assert ends_at.replace(tzinfo=None) == instant_of(time)


@given(any_text | any_text.map(lambda text: '{"switch": {"on": true}, ' + text))
@example("{")
@example("{}")
@example("{" * 100_000)
@example('{"switch": ' * 100_000)
@example('{"switch": {"on": true}, "x": ' + "[" * 100_000)
@example('{"switch": ' + "[" * 900 + "]" * 900 + "}")
@example('{"switch": {"on": true}, "x": ' + "9" * 5_000 + "}")
@example('{"switch": {"on": 1e999}}')
@example('{"switch": {"on": "\ud800"}}')
@example("\ufeff")
@example("\ufeff\ufeff1")
@example("\x00")
def test_text_to_state_of_any_text_returns_a_state_or_raises(text: str) -> None:
    state = state_or_none(text)
    assert state is None or text_to_state(state_to_text(state)) == without_lone_since(state)


@given(json_values | state_like_objects, st.booleans())
@example({"holds": {"id": "a", "on": True}}, True)
@example({"holds": 5}, True)
@example({"holds": [None]}, True)
@example({"windows": ["id"]}, True)
@example({"holds": [["id"]]}, True)
@example({"switch": [], "holds": []}, True)
@example({"holds": [{"id": "", "on": True}]}, True)
@example({"windows": [{"id": "a", "starts_at": None}]}, True)
@example({"windows": [{"id": "a", "starts_at": "0001-01-01T00:00:00+23:59"}]}, True)
@example({"switch": {"on": True, "ends_at": "9999-12-31T23:59:59-23:59"}}, True)
@example({"switch": {"on": True, "ends_at": "\ud800Z"}}, False)
@example({"switch": {"on": True, "message": "\ud800"}}, True)
def test_text_to_state_of_any_json_returns_a_state_or_raises(value: object, ascii_only: bool) -> None:
    state = state_or_none(json.dumps(value, ensure_ascii=ascii_only))
    assert state is None or text_to_state(state_to_text(state)) == without_lone_since(state)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("{}", "the field 'switch' is missing"),
        ('{"active": true}', "the field 'switch' is missing"),
        ('{"switch": {}}', "the field 'on' is missing"),
        ('{"switch": true}', "a switch must be a JSON object, got bool True"),
        ('{"windows": ""}', "windows must be a JSON array, got str ''"),
        ('{"holds": {"id": "a"}}', "holds must be a JSON array, got dict "),
        ('{"holds": ["a"]}', "a hold must be a JSON object, got str 'a'"),
        ('{"switch": {"on": 1}}', "on must be True or False, got int 1"),
        ('{"switch": {"on": true, "message": 5}}', "message must be a str, got int 5"),
        ('{"switch": {"on": true, "ends_at": 5}}', "a time must be a str, got int 5"),
        ('{"switch": {"on": true, "ends_at": "soon"}}', "SOON"),
        ('{"switch": {"on": true, "ends_at": "2026-03-29T12:00:00"}}', "ends_at must be an aware datetime"),
        (
            '{"windows": [{"id": "a", "starts_at": "2026-03-29T12:00:00Z", "ends_at": "2026-03-29T13:00:00+01:00"}]}',
            "ends_at must be after starts_at",
        ),
        ('{"windows": [{"id": "a"}]}', "the field 'starts_at' is missing"),
        ('{"holds": [{"on": true}]}', "the field 'id' is missing"),
        ('{"holds": [{"id": "a"}]}', "the field 'on' is missing"),
    ],
)
def test_text_to_state_error_shows_the_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidStateError) as caught:
        text_to_state(text)
    shown = f"text must be a JSON object that describes a state, got {text!r}: "
    assert str(caught.value).startswith(shown)
    assert reason in str(caught.value)
    assert ("the field" in str(caught.value)) == ("the field" in reason)


def test_text_to_state_error_shows_the_beginning_of_a_long_text() -> None:
    with pytest.raises(InvalidStateError, match=rf"got '{{{'x' * 199}': ") as caught:
        text_to_state("{" + "x" * 100_000)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("text", ["x" * 100_000, '{"switch": {"on": true, "message": [' + "1," * 50_000 + "1]}}"])
def test_text_to_state_error_is_short(text: str) -> None:
    with pytest.raises(
        InvalidStateError, match=r"^(value|text) must be .* got '.{200}'(: message must be a|$)"
    ) as caught:
        text_to_state(text)
    assert len(str(caught.value)) < 1_000


def test_bool_to_str_is_1_or_0_and_is_read_back() -> None:
    assert [bool_to_str(True), bool_to_str(False)] == ["1", "0"]
    assert [str_to_bool("1"), str_to_bool("0")] == [True, False]
