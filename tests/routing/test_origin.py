"""`_routing/origin.py`: what is the framework's own, seen through the proxies of an agent and through nothing else."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest
from fastapi.exception_handlers import http_exception_handler
from starlette.middleware.cors import CORSMiddleware

from fastapi_maintenance._routing.origin import is_framework, name_of, unwrapped


class FunctionWrapper:
    """A proxy like those of wrapt, which New Relic's agent has a copy of."""

    def __init__(self, wrapped: Any, wrapper: Callable[..., Any]) -> None:  # noqa: ANN401 -- anything can be wrapped
        self.__wrapped__ = wrapped
        self._self_wrapper = wrapper


def wrapper(*_: object) -> None:
    """Call what is wrapped, and note how long it takes."""


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what makes a proxy as the agent does."""
    name = "newrelic.common.object_wrapper"
    module = ModuleType(name)
    monkeypatch.setattr(FunctionWrapper, "__module__", name)
    module.FunctionWrapper = FunctionWrapper  # type: ignore[attr-defined]  # what is made here
    monkeypatch.setitem(sys.modules, name, module)
    return FunctionWrapper


def test_unwrapped_proxy_of_the_agent_is_what_it_wraps(agent: Callable[..., Any]) -> None:
    its_own = FunctionType(wrapper.__code__, {"__name__": "newrelic.hooks.framework_starlette"})
    proxy = agent(agent(CORSMiddleware, its_own), its_own)
    assert unwrapped(proxy) is CORSMiddleware
    assert is_framework(agent(http_exception_handler, its_own))


def test_unwrapped_proxy_with_a_wrapper_of_the_users_stays(agent: Callable[..., Any]) -> None:
    proxy = agent(http_exception_handler, wrapper)
    assert unwrapped(proxy) is proxy
    assert not is_framework(proxy)


def test_unwrapped_class_that_only_carries_the_name_of_the_proxy_stays() -> None:
    proxy = FunctionWrapper(http_exception_handler, wrapper)
    assert unwrapped(proxy) is proxy


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (http_exception_handler, "fastapi.exception_handlers.http_exception_handler"),
        (CORSMiddleware, "starlette.middleware.cors.CORSMiddleware"),
        (functools.wraps(http_exception_handler)(wrapper), f"{__name__}.wrapper"),
        (type("CORSMiddleware", (), {"__module__": "starlette.middleware.cors"}), ""),
        (functools.partial(wrapper), ""),
    ],
)
def test_name_of_thing_is_where_it_comes_from(thing: object, expected: str) -> None:
    assert name_of(thing) == expected
