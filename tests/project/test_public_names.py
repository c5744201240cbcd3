"""What public functions and classes take and return has a public name too."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

MODULES = [
    importlib.import_module(f"fastapi_maintenance{name}")
    for name in ("", ".backends.redis", ".backends.sqlalchemy", ".codec", ".router", ".testing", ".typing")
]
PUBLIC = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}


def types_in(annotation: Any) -> Iterator[type]:  # noqa: ANN401 -- whatever an annotation is made of
    """Yield the classes of the package in an annotation."""
    for part in annotation if isinstance(annotation, list) else get_args(annotation):
        yield from types_in(part)
    if getattr(annotation, "__module__", "").startswith("fastapi_maintenance") and isinstance(annotation, type):
        yield annotation


def signatures_of(value: Any) -> Iterator[Any]:  # noqa: ANN401 -- a function, a class or another object
    """Yield a function, or a class and the public methods and properties of it that are ours."""
    if inspect.isroutine(value):
        yield value
    for name, member in inspect.getmembers(value if isinstance(value, type) else type(value)):
        function = member.fget if isinstance(member, property) else member
        is_public = name in {"__init__", "__call__", "__aenter__"} or not name.startswith("_")
        if (
            is_public
            and inspect.isroutine(function)
            and str(getattr(function, "__module__", "")).startswith("fastapi_maintenance")
        ):
            yield function


@pytest.mark.parametrize("name", PUBLIC)
def test_signature_of_public_name_has_types_with_public_names(name: str) -> None:
    found = {
        each for one in signatures_of(PUBLIC[name]) for hint in get_type_hints(one).values() for each in types_in(hint)
    }
    assert {each.__name__ for each in found if not any(each is public for public in PUBLIC.values())} == set()


def test_public_names_that_are_walked_are_enough() -> None:
    assert sum(1 for value in PUBLIC.values() for _ in signatures_of(value)) > len(PUBLIC) > 100
