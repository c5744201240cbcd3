"""The early checks of arguments: what is right comes back, what is wrong is named with its value and the rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastapi_maintenance._helpers.checks import check_bool, check_callable, check_seconds, check_str, check_token

Check = Callable[[str, object], object]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_bool, False),
        (check_bool, True),
        (check_str, ""),
        (check_token, "X-Admin-Key"),
        (check_token, "!#$%&'*+-.^_`|~09AZaz"),
        (check_callable, len),
        (check_callable, dict),
        (check_seconds, 1),
        (check_seconds, 0.001),
    ],
)
def test_a_value_that_is_right_comes_back_as_it_is(check: Check, value: object) -> None:
    assert value is check("it", value)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_bool, 1, "it must be True or False, got int 1"),
        (check_bool, None, "it must be True or False, got NoneType None"),
        (check_str, b"x", "it must be a str, got bytes b'x'"),
        (check_str, str, "it must be a str, got the class str"),
        (check_token, 5, "it must be a str, got int 5"),
        (check_callable, "/health", "it must be callable, got str '/health'"),
        (check_seconds, "1", "it must be a number of seconds or a timedelta, got str '1'"),
        (check_seconds, True, "it must be a number of seconds or a timedelta, got bool True"),
        (check_seconds, None, "it must be a number of seconds or a timedelta, got NoneType None"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_type_error(check: Check, value: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        check("it", value)

    assert message == str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "a b", "a:b", "a\n", "\u00e9", "(", '"', "a\x00"])
def test_what_is_no_token_is_a_value_error(text: str) -> None:
    """RFC 9110 5.6.2."""
    with pytest.raises(ValueError, match=r"^it must be a token \(letters, digits and .*\), got '") as caught:
        check_token("it", text)

    assert str(caught.value).endswith(repr(text))


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, float("inf"), float("-inf"), float("nan")])
def test_seconds_are_above_zero_and_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"^it must be a finite number of seconds above 0, got ") as caught:
        check_seconds("it", value)

    assert str(caught.value).endswith(repr(value))
