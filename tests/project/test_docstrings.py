"""The examples in the docstrings of the package are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil

import pytest
from starlette.requests import Request

import fastapi_maintenance
from fastapi_maintenance import MaintenanceStatus
from fastapi_maintenance.responses import STATUS_KEY
from tests.support import make_request

MODULES = [
    module.name for module in pkgutil.walk_packages(fastapi_maintenance.__path__, f"{fastapi_maintenance.__name__}.")
]


def blocked(*, accept: str = "*/*", message: str | None = None) -> Request:
    """Return a request that was blocked, as a response callback is given it."""
    request = make_request(headers=[("Accept", accept)])
    request.scope[STATUS_KEY] = MaintenanceStatus(active=True, message=message)
    return request


REQUESTS = {"get": make_request, "blocked": blocked}
"""What the examples ask with, beside what their own module has."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module_are_so(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module), extraglobs=REQUESTS).failed == 0


def test_what_can_be_called_has_an_example() -> None:
    functions = [
        name
        for name in sorted({*fastapi_maintenance.__all__} - {"__version__"})
        if name[0].islower() or name.endswith(("FileBackend", "VarBackend", "MemoryBackend", "Middleware"))
    ]
    without = [name for name in functions if ">>> " not in (inspect.getdoc(getattr(fastapi_maintenance, name)) or "")]
    assert without == []


def test_there_are_examples_and_all_modules_are_looked_at() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {
        module for module in MODULES if any(each.examples for each in finder.find(importlib.import_module(module)))
    }
    assert {"fastapi_maintenance.codec", "fastapi_maintenance.backends.file"} <= found


def test_the_public_face_is_imports_and_the_sorted_list_of_what_they_bring() -> None:
    assert sorted(fastapi_maintenance.__all__) == fastapi_maintenance.__all__
    source = ast.parse(inspect.getsource(fastapi_maintenance))
    imports = [node for node in source.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert set(fastapi_maintenance.__all__) == imported
    assert {ast.Expr, ast.ImportFrom, ast.Assign} == {type(node) for node in source.body}
