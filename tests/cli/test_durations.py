"""Durations and times as operators type and read them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.cli.durations import format_duration, format_time, parse_duration, parse_time

BERLIN = timezone(timedelta(hours=2), "CEST")
NOW = datetime(2030, 6, 1, 20, 30, tzinfo=UTC)  # 22:30 in Berlin
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), (" 1D2H ", 93_600), ("1d0h5s", 86_405)],
)
def test_parse_duration_of_numbers_with_units_returns_their_sum(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-5m", "1.5h", "5 m", "30m1h", "1w", "9" * 30 + "d", "٣m"])
def test_parse_duration_of_anything_else_raises(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration above zero, such as 90s, 30m, 2h, 1d or 1h30m"):
        parse_duration(text)


@given(st.integers(1, 10**9).map(lambda seconds: timedelta(seconds=seconds)))
def test_parse_duration_reads_what_format_duration_writes(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text())
def test_parse_of_any_text_returns_or_raises_its_own_error(text: str) -> None:
    for parse, name in ((parse_duration, "duration"), (lambda text: parse_time(text, NOW), "time")):
        try:
            parse(text)
        except ValueError as error:
            assert f"is not a {name}" in str(error)  # noqa: PT017 -- either will do


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23:00", "2030-06-01T21:00"),
        ("22:30", "2030-06-02T20:30"),
        ("7:05", "2030-06-02T05:05"),
        ("22:30:01", "2030-06-01T20:30:01"),
        ("2030-12-31", "2030-12-30T22:00"),
        ("2030-12-31 22:00", "2030-12-31T20:00"),
        ("2030-12-31T22:00+05:30", "2030-12-31T16:30"),
        ("2030-12-31t22:00z", "2030-12-31T22:00"),
    ],
)
def test_parse_time_of_a_time_of_day_returns_the_first_after_and_of_a_date_that_date(text: str, expected: str) -> None:
    assert parse_time(text, NOW, BERLIN)[0] == utc(expected)


def test_parse_time_returns_the_zone_of_the_text() -> None:
    starts_at, zone = parse_time("2030-12-31T22:00-05:00", NOW)
    assert parse_time("04:00", starts_at, zone)[0] == utc("2031-01-01T09:00")


@pytest.mark.parametrize(
    "text", ["", "noon", "24:00", "25:00", "22:60", "22", "2030-02-30", "0001-01-01", "9999-12-31T23:59-10:00"]
)
def test_parse_time_of_anything_else_raises(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time such as 22:00, 2030-12-31 22:00"):
        parse_time(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("moment", "zone", "text"),
    [
        (NOW, BERLIN, "2030-06-01 22:30:00 CEST (20:30:00 UTC)"),
        (NOW + timedelta(hours=2), BERLIN, "2030-06-02 00:30:00 CEST (2030-06-01 22:30:00 UTC)"),
        (NOW, UTC, "2030-06-01 20:30:00 UTC"),
        (NOW, timezone(timedelta(), "GMT"), "2030-06-01 20:30:00 UTC"),
        (datetime.max.replace(tzinfo=UTC), BERLIN, "9999-12-31 23:59:59 UTC"),  # the year 10000 there
    ],
)
def test_format_time_has_the_zone_of_the_operator_and_utc(moment: datetime, zone: timezone, text: str) -> None:
    assert format_time(moment, zone) == text


# When clocks change


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first_after(hour: int, minute: int, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first minute after a moment at which clocks show this, or skip it."""
    moment, before = after.replace(second=0), after.replace(second=0).astimezone(zone).replace(tzinfo=None)
    while True:
        moment += MINUTE
        shown = moment.astimezone(zone).replace(tzinfo=None)
        # more than a minute where clocks are put forward
        passed = [before + MINUTE * count for count in range(1, max(2, (shown - before) // MINUTE + 1))]
        if (hour, minute) in {(one.hour, one.minute) for one in passed[:-1]} | {(shown.hour, shown.minute)}:
            return moment
        before = shown


@pytest.mark.skipif(not available_timezones(), reason="this machine has no list of time zones")
@given(
    st.integers(0, 23),
    st.integers(0, 59),
    st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31)).map(  # noqa: DTZ001 -- Hypothesis takes naive ones
        lambda moment: moment.replace(second=0, microsecond=0, tzinfo=UTC)
    ),
    st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu"]
    ),
)
@example(2, 30, utc("2030-10-26T23:30"), "Europe/Berlin")  # before the first 02:30 of the night clocks go back
@example(2, 30, utc("2030-10-27T00:30"), "Europe/Berlin")  # at it
@example(2, 30, utc("2030-10-27T00:40"), "Europe/Berlin")  # before the second
@example(2, 30, utc("2030-10-27T01:30"), "Europe/Berlin")  # at it
@example(2, 50, utc("2030-10-27T01:10"), "Europe/Berlin")
@example(2, 30, utc("2030-03-31T00:30"), "Europe/Berlin")  # before the one that is skipped as clocks go forward
@example(2, 0, utc("2030-03-31T00:30"), "Europe/Berlin")
@example(3, 0, utc("2030-03-31T00:30"), "Europe/Berlin")
@example(2, 30, utc("2030-03-31T01:00"), "Europe/Berlin")  # at the moment of the change
@example(2, 15, utc("2030-10-05T15:00"), "Australia/Lord_Howe")  # by half an hour
@example(22, 0, utc("2011-12-30T09:00"), "Pacific/Apia")  # before a day that is skipped
def test_parse_time_of_a_time_of_day_returns_the_first_in_every_night_of_every_zone(
    hour: int, minute: int, after: datetime, zone: str
) -> None:
    there = ZoneInfo(zone)
    assert parse_time(f"{hour}:{minute:02}", after, there) == (first_after(hour, minute, after, there), there)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2030-10-27 02:30", "2030-10-27T00:30"),  # the first of two
        ("2030-03-31 02:30:00.5", "2030-03-31T01:00"),  # skipped
        ("2030-03-31 03:00", "2030-03-31T01:00"),
        ("02:30", "2030-03-31T01:00"),
    ],
)
def test_parse_time_without_a_zone_uses_that_of_this_machine(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # Berlin, for machines without a list of zones
    time.tzset()
    try:
        assert parse_time(text, utc("2030-03-31T00:00")) == (utc(expected), None)
    finally:
        monkeypatch.undo()
        time.tzset()
