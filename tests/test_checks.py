"""The early checks of arguments, `_helpers/checks.py`."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from fastapi_maintenance._helpers.checks import (
    check_bool,
    check_callable,
    check_name,
    check_retry_after,
    check_seconds,
    check_str,
    check_token,
    reject_kind,
)

Check = Callable[[str, object], object]
SECONDS = "it must be a number of seconds or a timedelta, got"
RETRY_AFTER = "it must be a whole number of seconds or a timedelta, or a (min, max) pair of them, got"
at_most_3: Check = partial(check_name, at_most=3)


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        *[(check_bool, value, value) for value in (True, False)],
        *[(check_callable, value, value) for value in (len, dict)],
        *[(check_token, value, value) for value in ("X-Admin-Key", "!#$%&'*+-.^_`|~09AZaz")],
        (check_str, "", ""),
        (check_name, "x" * 10_000, "x" * 10_000),
        (at_most_3, "abc", "abc"),
        (check_seconds, 1, 1),
        (check_seconds, 0.001, 0.001),
        (check_seconds, timedelta(minutes=1, milliseconds=500), 60.5),
        (check_retry_after, 0, (0, 0)),
        (check_retry_after, (1, 1), (1, 1)),
        (check_retry_after, timedelta(seconds=1, microseconds=1), (2, 2)),
        (check_retry_after, (30, timedelta(minutes=1)), (30, 60)),
    ],
)
def test_check_valid_value_returns_it(check: Check, value: object, expected: object) -> None:
    assert check("it", value) == expected


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_bool, 1, "it must be True or False, got int 1"),
        (check_bool, None, "it must be True or False, got NoneType None"),
        (check_str, b"x", "it must be a str, got bytes b'x'"),
        (check_str, str, "it must be a str, got the class str"),
        (check_name, None, "it must be a str, got NoneType None"),
        (check_token, 5, "it must be a str, got int 5"),
        (check_callable, "/health", "it must be callable, got str '/health'"),
        (check_seconds, "1", f"{SECONDS} str '1'"),
        (check_seconds, True, f"{SECONDS} bool True"),
        (check_seconds, None, f"{SECONDS} NoneType None"),
        (check_retry_after, 1.0, f"{RETRY_AFTER} float 1.0"),
        (check_retry_after, True, f"{RETRY_AFTER} bool True"),
        (check_retry_after, (1,), f"{RETRY_AFTER} tuple (1,)"),
        (check_retry_after, (1, "2"), f"{RETRY_AFTER} tuple (1, '2')"),
        (lambda name, value: reject_kind(name, "a URL", value), b"secret", "it must be a URL, got bytes"),
    ],
)
def test_check_value_of_the_wrong_type_raises_a_type_error(check: Check, value: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        check("it", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("check", "value", "rule"),
    [
        *[  # RFC 9110 5.6.2
            (check_token, text, "be a token (letters, digits and !#$%&'*+-.^_`|~, no spaces)")
            for text in ("", " ", "a b", "a:b", "a\n", "\u00e9", "(", '"', "a\x00")
        ],
        *[
            (check_seconds, value, "be a finite number of seconds above 0")
            for value in (0, -1, 0.0, -0.5, *map(float, ("inf", "-inf", "nan")), timedelta(), -timedelta(1), -(10**400))
        ],
        *[
            (check_retry_after, value, "not be below 0, nor have a max below its min")
            for value in (-1, (2, 1), (-1, 1), timedelta(seconds=-1))
        ],
        (check_name, "", "not be empty"),
        *[(at_most_3, text, "be 1 to 3 characters long") for text in ("", "abcd")],
    ],
)
def test_check_value_that_breaks_the_rule_raises_a_value_error(check: Check, value: object, rule: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- compared below
        check("it", value)
    assert str(caught.value) == f"it must {rule}, got {value!r}"
