"""The apps that the browser visits: closed by the file `SWITCH`, each with a page of its own."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from fastapi_maintenance import LocalFileBackend, SyncResponseCallback, as_html, maintenance_middleware

SWITCH = LocalFileBackend(os.environ["SWITCH"])
TEMPLATE = """<!DOCTYPE html>
<html lang="$language"><head><title>$title</title><style>h1 { color: rgb(1, 2, 3); }</style></head>
<body><main><h1>$title</h1><p>$message</p>$expected</main></body></html>"""


async def shop(_: Request) -> HTMLResponse:
    """Answer while it is open."""
    return HTMLResponse("<!DOCTYPE html><html lang=en><title>Shop</title><h1>The shop is open</h1></html>")


def closed_with(response: SyncResponseCallback) -> ASGIApp:
    """Return the shop, closed with this page."""
    return maintenance_middleware(backend=SWITCH, response=response)(Starlette(routes=[Route("/", shop)]))


app = Starlette(
    routes=[
        Mount("/plain", closed_with(as_html())),
        Mount("/quick", closed_with(as_html(retry=1))),
        Mount("/own", closed_with(as_html(title="Umbau", message="Bis morgen", language="de", accent="rgb(9 8 7)"))),
        Mount("/template", closed_with(as_html(template=TEMPLATE))),
    ]
)
