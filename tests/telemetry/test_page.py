"""The set-ups of the page on telemetry run as they are written, with exporters in memory: traces, metrics and logs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from tests.documents import DOCS, example
from tests.support import client
from tests.telemetry.services import Collected, log_everything
from tests.telemetry.with_sentry import run_with_sentry

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as Sentry does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("maintenance.txt").write_text("1\n", encoding="utf-8")


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """Let the handlers that an example adds go with the test."""
    logger = logging.getLogger("fastapi_maintenance")
    handlers, level = list(logger.handlers), logger.level
    yield
    added = [handler for handler in logger.handlers if handler not in handlers]
    logger.handlers, logger.level = handlers, level
    for handler in added:
        handler.close()


@pytest.mark.parametrize(
    "heading", ["FastAPI's own telemetry", "Starlette's middleware", "OpenTelemetry's instrumentation"]
)
async def test_traces_request_is_blocked_have_its_route(heading: str) -> None:
    collected = Collected()
    app = example(heading).app(collected.providers)
    app.add_api_route("/orders/{order}", lambda order: order)
    async with client(app) as http:
        assert (await http.get("/orders/7")).status_code == 503
    span = collected.server_span()
    attributes = dict(span.attributes or {})
    found = span.name, attributes["http.route"], attributes["fastapi_maintenance.blocked"]
    assert found == ("GET /orders/{order}", "/orders/{order}", True)
    if heading == "FastAPI's own telemetry":
        assert [found["http.route"] for found in collected.duration_attributes()] == ["/orders/{order}"]
        blocked = collected.points("fastapi_maintenance.blocked_requests")
        assert blocked == [({"http.route": "/orders/{order}"}, 1)]
    if heading == "OpenTelemetry's instrumentation":
        FastAPIInstrumentor.uninstrument_app(app)


def test_traces_request_is_blocked_has_its_route_in_sentry() -> None:
    code = example("Sentry").replaced("traces_sample_rate=0.1", "traces_sample_rate=1.0, transport=transport")
    assert run_with_sentry("page", code.text) == {"transactions": [["/orders/{order}", "route"]], "events": []}


def fields_on_the_page() -> set[str]:
    page = (DOCS / "operations" / "telemetry.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(maintenance_\w+)`", page))


@pytest.mark.usefixtures("_own_logging")
@pytest.mark.parametrize("heading", ["python-json-logger", "structlog"])
async def test_log_lines_of_json_have_each_field(
    heading: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    example(heading).run()
    await log_everything()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (found,) = [line for line in lines if line.get("maintenance_active")]
    assert {name for name in found if name.startswith("maintenance_")} == fields_on_the_page()
    assert (found["maintenance_active"], found["maintenance_by"]) == (True, "alice")
    assert foreign_records(caplog) == []


def foreign_records(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of others, such as exporters."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record.getMessage() for record in records if not record.name.startswith("fastapi_maintenance")]


@pytest.mark.usefixtures("_own_logging")
async def test_log_handler_of_opentelemetry_has_each_field(caplog: pytest.LogCaptureFixture) -> None:
    collected = Collected()
    example("OpenTelemetry's log handler").run(logger_provider=collected.logger_provider)
    await log_everything()
    each: list[dict[str, Any]] = [dict(record.log_record.attributes) for record in collected.log_records]
    (found,) = [attributes for attributes in each if attributes.get("maintenance_active")]
    assert {name for name in found if name.startswith("maintenance_")} == fields_on_the_page()
    assert len(each) > 1
    assert foreign_records(caplog) == []


def test_logs_of_sentry_have_each_field() -> None:
    code = example("Sentry's logs").replaced("enable_logs=True", "enable_logs=True, transport=transport")
    found: Any = run_with_sentry("logs", code.text)
    assert set(found["fields"]) == fields_on_the_page()
    assert found["warnings"] == []


def test_reserved_names_are_those_that_the_package_uses() -> None:
    page = (DOCS / "operations" / "telemetry.md").read_text(encoding="utf-8")
    listed = page.partition("## Reserved names")[2]
    assert set(re.findall(r"^\| `(fastapi_maintenance\.\w+)`", listed, re.MULTILINE)) == {
        "fastapi_maintenance.blocked",
        "fastapi_maintenance.blocked_requests",
        "fastapi_maintenance.active",
        "fastapi_maintenance.switch",
    }
    assert fields_on_the_page() == set(re.findall(r"`(maintenance_\w+)`", listed))
