"""Sentry in a process of its own, as it patches what it finds: `python -m tests.telemetry.with_sentry WHAT`.

It prints what its transport got, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import anyio
from fastapi import FastAPI

from fastapi_maintenance import MemoryBackend, set_maintenance_mode
from tests.middleware.test_closed_websockets import connect_and_close, listen, push, say_goodbye, talk
from tests.support import ROOT, client, handshake, websocket_scope
from tests.telemetry.services import HANDSHAKES, REQUESTS, log_everything, service

DSN = "https://key@sentry.example/1"


def run_with_sentry(*arguments: str) -> Any:  # noqa: ANN401 -- what the function of this name returns
    """Run a function of this module in another process, and return what it returns."""
    command = [sys.executable, "-m", __name__, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Sentry:
    """The package, which not each session of nox has, and a transport in memory."""

    def __init__(self) -> None:
        self.sdk: Any = import_module("sentry_sdk")
        self.envelopes: list[Any] = []
        methods = {"capture_envelope": lambda _, envelope: self.envelopes.append(envelope)}
        self.transport: Any = type("Memory", (self.sdk.transport.Transport,), methods)()

    def begin(self, style: str = "url", **options: Any) -> None:  # noqa: ANN401 -- Sentry's
        """Trace all requests."""
        integrations = [
            import_module(f"sentry_sdk.integrations.{name.lower()}").__dict__[f"{name}Integration"](**arguments)
            for name, arguments in [
                ("Starlette", {"transaction_style": style}),
                ("FastApi", {"transaction_style": style}),
                ("Logging", {}),
            ]
        ]
        self.sdk.init(
            dsn=DSN,
            transport=self.transport,
            traces_sample_rate=1.0,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=integrations,
            **options,
        )

    def run(self, code: str) -> dict[str, Any]:
        """Run an example of the page; return its names."""
        names: dict[str, Any] = {"SENTRY_DSN": DSN, "transport": self.transport}
        exec(code, names)  # noqa: S102 -- it is our own document
        return names

    def take(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield what the transport got of a kind."""
        self.sdk.flush()
        for envelope in self.envelopes:
            yield from (item.payload.json for item in envelope.items if item.type == kind)

    def transactions(self) -> list[list[str]]:
        """Return the names and sources of transactions, or of the spans that are streamed in their place."""
        names = [[each["transaction"], str(each["transaction_info"]["source"])] for each in self.take("transaction")]
        spans = [span for spans in self.take("span") for span in spans["items"]]
        return names + [[span["name"], span["attributes"]["sentry.segment.name.source"]["value"]] for span in spans]


def routes(style: str, streaming: str) -> dict[str, list[list[str]]]:
    """Return the names of each kind of request when it passes, and when it is blocked."""
    sentry = Sentry()
    sentry.begin(style, _experiments={"trace_lifecycle": "stream"} if streaming else {})

    async def ask(app: FastAPI, url: str, root_path: str) -> None:
        if url in HANDSHAKES:
            await handshake(app, websocket_scope(url))
            return
        async with client(app, root_path=root_path) as http:
            assert (await http.get(url)).status_code == 503

    found: dict[str, list[list[str]]] = {}
    for url, root_path in [*REQUESTS, *((path, "") for path in HANDSHAKES)]:
        for active in (False, True):
            sentry.envelopes.clear()
            anyio.run(ask, service(MemoryBackend(state=active)), url, root_path)
            found.setdefault(url, []).extend(sentry.transactions())
    return found


def websockets() -> dict[str, Any]:
    """Return what is wrong after maintenance has closed open WebSockets."""
    sentry = Sentry()
    sentry.begin()
    errors = [error for behave in (listen, push, say_goodbye, talk) for error in anyio.run(connect_and_close, behave)]
    traces = [
        [each["op"], each["status"]]
        for transaction in sentry.take("transaction")
        for each in (transaction["contexts"]["trace"], *transaction["spans"])
        if each.get("status", "ok") != "ok"
    ]
    return {"errors": list(map(repr, errors)), "traces": traces, "events": list(sentry.take("event"))}


def page(code: str) -> dict[str, Any]:
    """Run the example of the page, and block a request."""
    sentry = Sentry()
    app: FastAPI = sentry.run(code)["app"]
    app.add_api_route("/orders/{order}", lambda order: order)

    async def ask() -> None:
        await set_maintenance_mode(True, "file:maintenance.txt")
        async with client(app) as http:
            assert (await http.get("/orders/7")).status_code == 503

    anyio.run(ask)
    return {"transactions": sentry.transactions(), "events": list(sentry.take("event"))}


def logs(code: str) -> dict[str, Any]:
    """Run the example of the page, and log all kinds of records."""
    sentry, warnings = Sentry(), list[str]()
    sentry.run(code)
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentry_sdk").addHandler(handler)
    anyio.run(log_everything)
    attributes = [each["attributes"] for log in sentry.take("log") for each in log["items"]]
    (fields,) = [each for each in attributes if each.get("maintenance_active", {}).get("value")]
    return {"fields": [name for name in fields if name.startswith("maintenance_")], "warnings": warnings}


if __name__ == "__main__":
    functions: dict[str, Callable[..., Any]] = {each.__name__: each for each in (routes, websockets, page, logs)}
    sys.stdout.write(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
