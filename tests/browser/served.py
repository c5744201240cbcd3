"""The apps that the browser visits, each at the host `NAME.localhost`, with their switch in `maintenance.txt`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import HTMLResponse
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    PageWords,
    SyncResponseCallback,
    as_html,
    as_json,
    as_problem,
    maintenance_middleware,
    negotiate,
    path_prefix,
)
from fastapi_maintenance.router import maintenance_notice
from tests.documents import Example, example
from tests.switch.lifespans import living

SWITCH = "file:maintenance.txt"
HTML = (
    '<!DOCTYPE html><html lang="en"><head><title>Shop</title><link rel="icon" href="data:,">{head}</head>{body}</html>'
)

# The maintenance page

TEMPLATE = """<!DOCTYPE html>
<html lang="$language"><head><title>$title</title><style>h1 { color: rgb(1, 2, 3); }</style></head>
<body><main><img src="/logo.svg" alt="Shop"><h1>$title</h1><p>$message</p>$expected</main></body></html>"""
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
PAGES: dict[str, SyncResponseCallback] = {
    "/plain": as_html(),
    "/own": as_html(title="Umbau", message="Bis morgen", language="de", accent="rgb(9 8 7)"),
    "/template": as_html(template=TEMPLATE),
    "/framed": as_html(frame_ancestors="http://outside.localhost:*"),
    "/arabic": as_html(words={"ar": ARABIC}, status_page="https://status.example/?a=1&lt=2"),
    "": as_html(retry=1),
}


async def shop(_: Request) -> Response:
    return HTMLResponse(HTML.format(head="", body="<h1>The shop is open</h1>"))


async def logo(_: Request) -> Response:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"></svg>'
    return Response(svg, media_type="image/svg+xml")


async def framing(request: Request) -> Response:
    """Return a page that shows another one in a frame."""
    frame = f'<iframe src="{request.query_params["shows"]}"></iframe>'
    return HTMLResponse(HTML.format(head="", body=frame))


def page_with(response: SyncResponseCallback) -> ASGIApp:
    return maintenance_middleware(backend=SWITCH, response=response)(Starlette(routes=[Route("/{path:path}", shop)]))


pages = Starlette(
    routes=[
        Route("/logo.svg", logo),
        Route("/framing", framing),
        *(Mount(path, page_with(response)) for path, response in PAGES.items()),
    ]
)

# An API that pages of another origin ask, with CORS in each place


def api(*layers: Any, mounted: bool = False) -> FastAPI:  # noqa: ANN401 -- settings of CORS, or a middleware
    """Return an API with these layers, from the inside."""
    app = FastAPI()

    @app.api_route("/items", methods=["GET", "PUT"])
    async def items(request: Request) -> dict[str, str]:
        return {"detail": (await request.body()).decode()}

    outer = app
    for layer in layers:
        if isinstance(layer, dict):
            settings = {"allow_methods": ["GET", "PUT"], "allow_headers": ["X-Token"], **layer}
            outer.add_middleware(CORSMiddleware, allow_origin_regex=r"http://shop\.localhost:\d+", **settings)
        else:
            outer.add_middleware(layer)
        if mounted and outer is app:
            outer = FastAPI()
            outer.mount("/shop", app)
    return outer


def maintenance(**settings: Any) -> Any:  # noqa: ANN401 -- a middleware and its settings
    return maintenance_middleware(backend=SWITCH, retry_after=120, **settings)


class Unknown:
    """A layer that the library does not know."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


LISTED = ["Retry-After", "X-Maintenance-Mode"]
APIS: dict[str, FastAPI] = {
    "inside": api({}, maintenance()),
    "problem": api({}, maintenance(response=as_problem())),
    "blocking": api({}, maintenance(unmatched="block")),
    "credentials": api({"allow_credentials": True, "expose_headers": ["X-Total"]}, maintenance()),
    "unknown-layer": api({}, Unknown, maintenance()),
    "mounted": api({}, maintenance(), mounted=True),
    "outside": api(maintenance(), {}),
    "outside-listed": api(maintenance(), {"expose_headers": LISTED}),
    "outside-credentials": api(maintenance(), {"expose_headers": LISTED, "allow_credentials": True}),
    "outside-unlisted": api(maintenance(), {"expose_headers": ["X-Total"]}),
}

# Pages with htmx 2, htmx 4, Turbo and plain HTML

SCRIPT = example("htmx and Turbo", "html").replaced("10_000 + Math.random() * 10_000", "100").text
HEADS = {
    "bare": "",
    "swapping": """<meta name="htmx-config" content='{"responseHandling": [{"code": "...", "swap": true}]}'>""",
    "script": SCRIPT,
}
FORM = '<form action="send" method="post"><input name="text" aria-label="Text"><button>Send</button></form>'
HTMX = """<form hx-post="send" hx-target="#here"><input name="text" aria-label="Text"><button>Send</button></form>
<button hx-get="part" hx-target="#here">Part</button>
<a href="part" hx-boost="true">Link</a>"""
TURBO = f'{FORM}<turbo-frame id="frame"><a href="part">Part</a></turbo-frame><a href="part">Link</a>'
BODIES = {"htmx2": HTMX, "htmx4": HTMX, "turbo": TURBO, "plain": FORM}
STREAM = '<turbo-stream action="update" target="here"><template>Sent</template></turbo-stream>'


async def page(request: Request) -> Response:
    """Return a page of a framework, with a head."""
    framework, head = request.path_params["framework"], HEADS[request.path_params["head"]]
    script = f'{head}<script src="/scripts/{framework}.js"></script>'
    return HTMLResponse(
        HTML.format(head=script, body=f'<main><h1>App</h1>{BODIES[framework]}<p id="here">Here</p></main>')
    )


async def part(_: Request) -> Response:
    return HTMLResponse('<turbo-frame id="frame"><p>A part</p></turbo-frame>')


async def send(request: Request) -> Response:
    is_turbo = "text/vnd.turbo-stream.html" in request.headers["accept"]
    return HTMLResponse(STREAM, media_type="text/vnd.turbo-stream.html") if is_turbo else HTMLResponse("Sent")


frameworks = maintenance_middleware(
    backend=SWITCH, exempt=path_prefix("/scripts"), response=negotiate(as_html(retry=0.5), as_json())
)(
    Starlette(
        routes=[
            Mount("/scripts", StaticFiles(directory=".")),
            Route("/{framework}/{head}/", page),
            Route("/{framework}/{head}/part", part),
            Route("/{framework}/{head}/send", send, methods=["POST"]),
        ]
    )
)

# Recipes of the documentation


def with_page(recipe: Example, html: Example) -> FastAPI:
    """Return the app of a recipe with a page that has the HTML of another one, and an endpoint."""
    app: FastAPI = recipe.run()["app"]

    async def show() -> Response:
        viewport = '<meta name="viewport" content="width=device-width">'
        return HTMLResponse(HTML.format(head=viewport, body=f"<body><main><h1>Shop</h1>{html.text}</main></body>"))

    app.add_api_route("/shop", show)
    app.add_api_route("/items", lambda: None)
    return app


notice = with_page(
    example("A public notice").replaced("maintenance_notice()", "maintenance_notice(max_age=0.1)"),
    example("A banner 30 minutes ahead", "html"),
)
streams = with_page(
    example("Streams that do not end")
    .replaced("retry: 3000", "retry: 10")
    .replaced("as_event_stream()", "as_event_stream(retry=0.1)"),
    example("Event streams", "html"),
)
reconnecting = example("A page that asks for the reason", "html").replaced("30_000", "100").replaced("* 5_000", "* 10")
with_reason = example("A reason in the close event").replaced(
    "maintenance_middleware()", f'maintenance_middleware(backend="{SWITCH}", retry_after=120)'
)
without_reason = with_reason.replaced("app.add_middleware(CloseWithReason)\n", "")


async def updates(websocket: WebSocket) -> None:
    """Keep a WebSocket open; refuse one with a query."""
    if websocket.query_params:
        raise HTTPException(401)
    await websocket.accept(websocket.headers.get("Sec-WebSocket-Protocol"))
    await websocket.receive_text()


websockets = {"reason": with_page(with_reason, reconnecting), "websockets": with_page(without_reason, reconnecting)}
for each in websockets.values():
    each.include_router(maintenance_notice())
    each.add_api_websocket_route("/ws", updates)

HOSTS: dict[str, Any] = {
    "page": pages,
    "outside": pages,
    "shop": Starlette(routes=[Route("/", shop)]),
    "api": Starlette(routes=[Mount(f"/{name}", app) for name, app in APIS.items()]),
    "frameworks": frameworks,
    "notice": notice,
    "streams": streams,
    **websockets,
}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    """Run the lifespan of the app that has one."""
    async with living(streams):
        yield


app = Starlette(routes=[Host(f"{name}.localhost", each) for name, each in HOSTS.items()], lifespan=lifespan)
