"""Which media type a client would rather have."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance.responses import negotiation
from fastapi_maintenance.responses.negotiation import preferred

HTML, JSON, PROBLEM, TEXT = "text/html", "application/json", "application/problem+json", "text/plain"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            [
                *(None, "", "*/*", "application/json", "APPLICATION/JSON", "application/json; charset=utf-8"),
                *("text/html;q=0.4, application/json;q=0.5", "text/html;q=0.5, */*", "text/html;q=0, */*"),
                *("text/html;q=0", "text/*;q=0.9, text/html;q=0.1, application/json;q=0.5", "image/png"),
                *("text/html;level=1", "text/html;q=1.5", "text/html;q=high", "*/html", "text"),
            ],
            JSON,
        ),
        (
            [
                *(BROWSER, "text/*", "text/html;q=0.5, application/json;q=0.4", "text/html, */*"),
                *("application/json;q=0, */*", "application/json, text/html", "text/html ; q=1.000", ",,text/html,,"),
                *('text/plain;title="a,b", text/html', "text/html;"),
            ],
            HTML,
        ),
        (["application/problem+json"], PROBLEM),
    ],
)
def test_what_a_client_would_rather_have(headers: list[str | None], expected: str) -> None:
    offers = [HTML, JSON, PROBLEM]
    assert {accept: offers[preferred(accept, offers)] for accept in headers} == dict.fromkeys(headers, expected)


def test_without_json_the_first_is_what_those_get_who_do_not_care() -> None:
    assert [0, 0, 1] == [preferred(accept, [HTML, TEXT]) for accept in (None, "*/*", "text/plain")]
    assert 1 == preferred("text/html;q=0, */*", [HTML, TEXT])


@given(st.text() | st.text(alphabet='abhjlmnopstx*/;=q.,"\\ 01'), st.permutations([HTML, JSON, PROBLEM, TEXT]))
@example('"', [HTML, JSON])
@example(";" * 10_000, [HTML, JSON])
@example("a/b" + ";a=" * 5_000, [HTML, JSON])
def test_any_header_leads_to_one_of_the_offers(accept: str, offers: list[str]) -> None:
    assert 0 <= preferred(accept, offers) < len(offers)


WEIGHTS = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(st.dictionaries(st.sampled_from([HTML, JSON, PROBLEM, TEXT]), WEIGHTS, min_size=1))
def test_nothing_is_chosen_that_is_wanted_less_than_another(weights: dict[str, float]) -> None:
    offers = list(weights)
    accept = ", ".join(f"{name};q={weight:.3f}" for name, weight in sorted(weights.items()))
    chosen = offers[preferred(accept, offers)]
    assert max(weights.values()) == weights[chosen] or max(weights.values()) == 0


@pytest.mark.parametrize("header", ['\\"' * 1000, '"' + "a," * 1000, '"\\'])
def test_text_that_is_not_closed_ends_with_the_header_and_is_looked_for_once(header: str) -> None:
    assert re.findall(negotiation._ELEMENT, header) == [header]
