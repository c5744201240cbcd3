"""The apps that the browser visits: closed by the file `SWITCH`, each with a page of its own."""

from __future__ import annotations

import html
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from fastapi_maintenance import LocalFileBackend, PageWords, SyncResponseCallback, as_html, maintenance_middleware

SWITCH = LocalFileBackend(os.environ["SWITCH"])
TEMPLATE = """<!DOCTYPE html>
<html lang="$language"><head><title>$title</title><style>h1 { color: rgb(1, 2, 3); }</style></head>
<body><main><img src="/logo.svg" alt="Shop"><h1>$title</h1><p>$message</p>$expected</main></body></html>"""
LOGO = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"></svg>'
ARABIC = PageWords(
    title="الموقع قيد الصيانة",
    message="نعمل على ذلك وسنعود قريبًا.",
    expected="العودة المتوقعة",
    soon="خلال أقل من دقيقة",
    minutes=("خلال دقيقة تقريبًا", "خلال {} دقيقة تقريبًا"),
    hours=("خلال ساعة تقريبًا", "خلال {} ساعات تقريبًا"),
    days=("خلال يوم تقريبًا", "خلال {} أيام تقريبًا"),
    status_page="صفحة الحالة",
)


async def shop(_: Request) -> HTMLResponse:
    """Answer while it is open."""
    return HTMLResponse("<!DOCTYPE html><html lang=en><title>Shop</title><h1>The shop is open</h1></html>")


async def logo(_: Request) -> Response:
    """Answer with an image."""
    return Response(LOGO, media_type="image/svg+xml")


async def outside(request: Request) -> HTMLResponse:
    """Answer with a page that shows another one in a frame."""
    url = html.escape(request.query_params["shows"])
    return HTMLResponse(f"<!DOCTYPE html><html lang=en><title>Outside</title><iframe src='{url}'></iframe></html>")


def closed_with(response: SyncResponseCallback) -> ASGIApp:
    """Return the shop, closed with this page."""
    return maintenance_middleware(backend=SWITCH, response=response)(Starlette(routes=[Route("/{path:path}", shop)]))


app = Starlette(
    routes=[
        Mount("/plain", closed_with(as_html())),
        Mount("/quick", closed_with(as_html(retry=1))),
        Mount("/own", closed_with(as_html(title="Umbau", message="Bis morgen", language="de", accent="rgb(9 8 7)"))),
        Mount("/template", closed_with(as_html(template=TEMPLATE))),
        Mount("/framed", closed_with(as_html(frame_ancestors="http://localhost:*"))),
        Mount("/arabic", closed_with(as_html(words={"ar": ARABIC}, status_page="https://status.example/?a=1&lt=2"))),
        Route("/logo.svg", logo),
        Route("/outside", outside),
        Mount("", closed_with(as_html(retry=1))),
    ]
)
