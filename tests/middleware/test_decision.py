"""The order of the decision, against the table of the design, without an event loop."""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

import pytest

from fastapi_maintenance.middleware import decide

Unmatched = Literal["pass", "block"]


class Facts(NamedTuple):
    """What the decision is told, in one of all the ways there are."""

    mark: bool | None
    active: bool
    answered: bool
    documentation: bool
    unmatched: Unmatched
    exempt_docs: bool


class Row(NamedTuple):
    """A row of the design's table: the facts that it needs, and what it says."""

    number: int
    needs: dict[str, object]
    blocks: bool | None


# The first row, neither HTTP nor WebSocket, is decided before there are facts; the last two are one here, since the
# predicate is only asked where nothing else decides.
TABLE = (
    Row(2, {"mark": True}, True),
    Row(3, {"mark": False}, False),
    Row(4, {"active": False}, False),
    Row(5, {"answered": False, "unmatched": "pass"}, False),
    Row(6, {"documentation": True, "exempt_docs": True}, False),
    Row(7, {}, None),
)
UNMATCHED: tuple[Unmatched, ...] = ("pass", "block")
BOTH = (False, True)
ALL_FACTS = [Facts(*facts) for facts in product((None, *BOTH), BOTH, BOTH, BOTH, UNMATCHED, BOTH)]


def row_for(facts: Facts) -> Row:
    """Return the first row that applies."""
    return next(row for row in TABLE if row.needs.items() <= facts._asdict().items())


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_the_first_row_that_applies_decides(facts: Facts) -> None:
    assert row_for(facts).blocks is decide(**facts._asdict())


def test_all_facts_are_tried_and_every_row_decides_something() -> None:
    assert 3 * 2**5 == len(set(ALL_FACTS))
    assert {row.number for row in TABLE} == {row_for(facts).number for facts in ALL_FACTS}
