"""The examples in the docstrings of the package are so."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastapi_maintenance

MODULES = [
    module.name for module in pkgutil.walk_packages(fastapi_maintenance.__path__, f"{fastapi_maintenance.__name__}.")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_are_so(module: str) -> None:
    assert 0 == doctest.testmod(importlib.import_module(module)).failed


def test_there_are_examples_and_all_modules_are_looked_at() -> None:
    attempted = [doctest.testmod(importlib.import_module(module)).attempted for module in MODULES]
    assert {"fastapi_maintenance.codec", "fastapi_maintenance.backends.file"} <= set(MODULES)
    assert 0 < sum(attempted)


def test_the_public_face_lists_all_that_it_imports_in_order() -> None:
    assert sorted(fastapi_maintenance.__all__) == fastapi_maintenance.__all__
    public = {name for name in vars(fastapi_maintenance) if not name.startswith("_")}
    modules = {module.split(".")[1] for module in MODULES}
    assert set(fastapi_maintenance.__all__) == public - modules
