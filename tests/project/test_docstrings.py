"""The examples in the docstrings of the package run, and every public function has one."""

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
EXAMPLES = {"fastapi_maintenance.codec": 1, "fastapi_maintenance.backends.file": 1}


def blocked(*, accept: str = "*/*", message: str | None = None) -> Request:
    """Return a request that was blocked."""
    request = make_request(headers=[("Accept", accept)])
    request.scope[STATUS_KEY] = MaintenanceStatus(active=True, message=message)
    return request


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_of_a_module_have_examples_that_run(module: str) -> None:
    globs = {"get": make_request, "blocked": blocked}
    result = doctest.testmod(importlib.import_module(module), extraglobs=globs)
    assert result.failed == 0
    assert result.attempted >= EXAMPLES.get(module, 0)


def test_public_functions_have_an_example() -> None:
    functions = [
        name
        for name in sorted({*fastapi_maintenance.__all__} - {"__version__"})
        if name[0].islower() or name.endswith(("FileBackend", "VarBackend", "MemoryBackend", "Middleware"))
    ]
    without = [name for name in functions if ">>> " not in (inspect.getdoc(getattr(fastapi_maintenance, name)) or "")]
    assert without == []
