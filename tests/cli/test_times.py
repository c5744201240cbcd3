"""Durations and times as operators type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance.cli.show import duration_of, shown_duration, shown_time, time_of

BERLIN = timezone(timedelta(hours=2), "CEST")
NOW = datetime(2030, 6, 1, 20, 30, tzinfo=UTC)  # 22:30 in Berlin


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), (" 1D2H ", 93_600), ("1d0h5s", 86_405)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert timedelta(seconds=seconds) == duration_of(text)


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-5m", "1.5h", "5 m", "30m1h", "1w", "9" * 30 + "d", "٣m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration above zero, such as 90s, 30m, 2h, 1d or 1h30m"):
        duration_of(text)


@given(st.integers(1, 10**9).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_duration_that_is_shown_is_read_back(duration: timedelta) -> None:
    assert duration == duration_of(shown_duration(duration))


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert duration_of(text) > timedelta()
    except ValueError as error:
        assert "is no duration" in str(error)  # noqa: PT017 -- either will do


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23:00", datetime(2030, 6, 1, 21, 0, tzinfo=UTC)),
        ("22:30", datetime(2030, 6, 2, 20, 30, tzinfo=UTC)),
        ("7:05", datetime(2030, 6, 2, 5, 5, tzinfo=UTC)),
        ("22:30:01", datetime(2030, 6, 1, 20, 30, 1, tzinfo=UTC)),
        ("2030-12-31", datetime(2030, 12, 30, 22, 0, tzinfo=UTC)),
        ("2030-12-31 22:00", datetime(2030, 12, 31, 20, 0, tzinfo=UTC)),
        ("2030-12-31T22:00+05:30", datetime(2030, 12, 31, 16, 30, tzinfo=UTC)),
        ("2030-12-31T22:00Z", datetime(2030, 12, 31, 22, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_next_one_or_that_of_a_date(text: str, expected: datetime) -> None:
    assert expected == time_of(text, NOW, BERLIN)


@pytest.mark.parametrize(
    "text", ["", "noon", "25:00", "22:60", "22", "2030-02-30", "0001-01-01", "9999-12-31T23:59-10:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time such as 22:00, 2030-12-31 22:00"):
        time_of(text, NOW, BERLIN)


@given(st.text())
def test_any_text_is_an_aware_time_or_refused(text: str) -> None:
    try:
        assert time_of(text, NOW).utcoffset() == timedelta()
    except ValueError as error:
        assert "is no time" in str(error)  # noqa: PT017 -- either will do


def test_a_time_without_a_zone_is_that_of_this_machine() -> None:
    local = datetime(2030, 12, 31, 22, 0).astimezone()
    assert local == time_of("2030-12-31 22:00", NOW)


def test_a_time_is_shown_in_the_operators_zone_and_in_utc() -> None:
    assert shown_time(NOW, BERLIN) == "2030-06-01 22:30:00 CEST (20:30:00 UTC)"
    late = NOW + timedelta(hours=2)
    assert shown_time(late, BERLIN) == "2030-06-02 00:30:00 CEST (2030-06-01 22:30:00 UTC)"
