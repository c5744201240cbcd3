"""The examples in the docstrings of the package are so."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from starlette.requests import Request

import fastapi_maintenance
from fastapi_maintenance import MaintenanceState, _names
from fastapi_maintenance.responses import STATE_KEY
from tests.support import make_request

MODULES = [
    module.name for module in pkgutil.walk_packages(fastapi_maintenance.__path__, f"{fastapi_maintenance.__name__}.")
]


def blocked(*, accept: str = "*/*", message: str | None = None) -> Request:
    """Return a request that was blocked, as a response callback is given it."""
    request = make_request(headers=[("Accept", accept)])
    request.scope[STATE_KEY] = MaintenanceState(active=True, message=message)
    return request


REQUESTS = {"get": make_request, "blocked": blocked}
"""What the examples ask with, beside what their own module has."""


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_are_so(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert 0 == doctest.testmod(importlib.import_module(module), extraglobs=REQUESTS).failed


@pytest.mark.parametrize("name", fastapi_maintenance.__all__)
def test_what_can_be_called_has_an_example(name: str) -> None:
    thing = getattr(fastapi_maintenance, name)
    told = name[0].isupper() and not name.endswith(("FileBackend", "VarBackend", "MemoryBackend", "Middleware"))
    assert told or ">>> " in (inspect.getdoc(thing) or "")


def test_there_are_examples_and_all_modules_are_looked_at() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {
        module for module in MODULES if any(each.examples for each in finder.find(importlib.import_module(module)))
    }
    assert {"fastapi_maintenance.codec", "fastapi_maintenance.backends.file"} <= found


def test_the_public_face_lists_all_that_it_imports_in_order() -> None:
    assert sorted(fastapi_maintenance.__all__) == fastapi_maintenance.__all__
    source = ast.parse(inspect.getsource(fastapi_maintenance))
    imports = [node for node in ast.walk(source) if isinstance(node, ast.ImportFrom)]
    seen = {
        (node.module or "").removeprefix("fastapi_maintenance."): " ".join(alias.name for alias in node.names)
        for node in imports
        if node.module not in {"typing", "fastapi_maintenance._names"}
    }
    assert seen == _names.HOMES
    assert fastapi_maintenance.__all__ == sorted(" ".join(_names.HOMES.values()).split())


def test_each_public_name_is_found_and_no_other() -> None:
    assert [] == [name for name in fastapi_maintenance.__all__ if not hasattr(fastapi_maintenance, name)]
    assert set(fastapi_maintenance.__all__) <= set(dir(fastapi_maintenance))
    with pytest.raises(AttributeError, match="module 'fastapi_maintenance' has no attribute 'path_prefx'"):
        fastapi_maintenance.path_prefx  # type: ignore[attr-defined]  # noqa: B018 -- it is looked for
    with pytest.raises(ImportError, match="cannot import name 'path_prefx'"):
        from fastapi_maintenance import path_prefx  # type: ignore[attr-defined]  # noqa: F401, PLC0415 -- as above
