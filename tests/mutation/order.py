"""A pytest plugin that runs the fastest tests first, since the first failure is enough for a mutant."""

from __future__ import annotations

import pytest

_COSTS = {"sqlite": 1, "asyncpg": 3, "psycopg": 4, "cluster": 5}
_SLOW = ("many_processes", "agree", "locked", "hangs", "may_not_listen", "cannot_listen", "no_change_by_one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by the servers that a test needs, and by whether it is slow."""
    items.sort(key=_cost)


def _cost(item: pytest.Item) -> int:
    name = item.nodeid
    store = max((cost for kind, cost in _COSTS.items() if kind in name), default=2 if "redis" in name else 0)
    return store + 10 * any(word in name for word in _SLOW)
