"""An app with pages of htmx 2, htmx 4, Turbo and plain HTML, closed by the file `SWITCH`."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fastapi_maintenance import as_html, as_json, maintenance_middleware, negotiate, path_prefix
from tests.documents import example

SCRIPT = example("htmx and Turbo", "html").replaced("10_000 + Math.random() * 10_000", "100").text
SWAPPING = """<meta name="htmx-config" content='{"responseHandling": [{"code": "...", "swap": true}]}'>"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>App</title>{head}<script src="/scripts/{framework}.js"></script></head>
<body><main><h1>App</h1>{body}<p id="here">Here</p></main></body></html>"""
HTMX = """
<form hx-post="send" hx-target="#here"><input name="text" aria-label="Text"><button>Send</button></form>
<button hx-get="part" hx-target="#here">Part</button>
<a href="part" hx-boost="true">Link</a>"""
TURBO = """
<form action="send" method="post"><input name="text" aria-label="Text"><button>Send</button></form>
<turbo-frame id="frame"><a href="part">Part</a></turbo-frame>
<a href="part">Link</a>"""
PLAIN = """<form action="send" method="post"><input name="text" aria-label="Text"><button>Send</button></form>"""
STREAM = '<turbo-stream action="update" target="here"><template>Sent</template></turbo-stream>'


async def page(request: Request) -> HTMLResponse:
    """Return a page with a form, a part to load, and a link; its head may have the script of the recipe."""
    framework = request.path_params["framework"]
    head = {"bare": "", "swapping": SWAPPING, "script": SCRIPT}[request.path_params["head"]]
    body = HTMX if framework.startswith("htmx") else {"turbo": TURBO, "plain": PLAIN}[framework]
    return HTMLResponse(PAGE.format(head=head, framework=framework, body=body))


async def part(_: Request) -> HTMLResponse:
    """Return a part of a page, also as a frame of Turbo."""
    return HTMLResponse('<turbo-frame id="frame"><p>A part</p></turbo-frame>')


async def send(request: Request) -> HTMLResponse:
    """Take what was typed, and say so in the way of the framework."""
    if "text/vnd.turbo-stream.html" in request.headers["accept"]:
        return HTMLResponse(STREAM, media_type="text/vnd.turbo-stream.html")
    return HTMLResponse("Sent")


app = maintenance_middleware(
    backend=f"file:{os.environ['SWITCH']}",
    exempt=path_prefix("/scripts"),
    response=negotiate(as_html(retry=0.5), as_json()),
)(
    Starlette(
        routes=[
            Mount("/scripts", StaticFiles(directory=os.environ["SCRIPTS"])),
            Route("/{framework}/{head}/", page),
            Route("/{framework}/{head}/part", part),
            Route("/{framework}/{head}/send", send, methods=["POST"]),
        ]
    )
)
