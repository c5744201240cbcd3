"""Routes that let a client in while maintenance is on: by the secret, or by a link from somebody who knows it."""

from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance.predicates.bypass import BypassCookie, app_root
from fastapi_maintenance.router.models import Admission, Presented, check_prefix
from fastapi_maintenance.router.refusals import AdminRoute, refusals

_TOKEN_LIMIT = 512  # characters


def bypass_router(bypass: BypassCookie, *, prefix: str = "/maintenance", base_url: str | None = None) -> APIRouter:
    """Return a router that lets people in during maintenance, and can do nothing else.

    >>> from fastapi import FastAPI
    >>> from fastapi_maintenance import bypass_cookie
    >>> app = FastAPI()
    >>> app.include_router(bypass_router(bypass_cookie("a long secret that nobody guesses")))

    `POST <prefix>/bypass` gives the cookie to whoever sends its secret, and a link that gives it to others. It
    asks for no dependency: visitors who are locked out have no other way in.

    Args:
        bypass: The `bypass_cookie(...)` that exempts in the middleware.
        prefix: The beginning of its paths.
        base_url: The URL of the app, such as `https://shop.example`, for links that let others in; None: the host that
            a request names, which its sender can forge. If it begins with `https`, the cookie is `Secure`, whatever
            scheme the proxy in front of the app reports.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `base_url` is no absolute URL.
    """
    if not isinstance(bypass, BypassCookie):
        reject("bypass", "made by bypass_cookie", bypass)
    base = None if base_url is None else checked_base_url(base_url)
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"], route_class=AdminRoute)
    add_bypass(router, bypass, base)
    return router


def add_bypass(router: APIRouter, bypass: BypassCookie, base_url: str | None) -> None:
    """Add the route that gives the cookie for the secret, and the one that gives it for a link."""
    over_https = base_url is not None and urlsplit(base_url).scheme == "https"
    forbidden = HTTPException(403, "Forbidden")

    @router.post("/bypass", responses=refusals(400, 403, 413), summary="Get in while maintenance is on")
    async def present(presented: Presented, request: Request, response: Response) -> Admission:
        if not bypass.knows(presented.secret):
            raise forbidden
        expiry = bypass.new_expiry()
        bypass.give(response, request, expiry, over_https=over_https)
        response.headers["Cache-Control"] = "no-store"
        base = str(request.base_url).rstrip("/") if base_url is None else base_url
        path = quote(route_path({**request.scope, "root_path": app_root(request)}))
        return Admission(link=f"{base}{path}?{urlencode({'token': bypass.signed('link', expiry)})}")

    @router.get(
        "/bypass", responses=refusals(403), status_code=303, response_class=RedirectResponse, summary="Get in by a link"
    )
    async def follow(token: Annotated[str, Query(max_length=_TOKEN_LIMIT)], request: Request) -> Response:
        expiry = bypass.expiry_in(token, "link")
        if expiry is None:
            raise forbidden
        response = RedirectResponse(f"{app_root(request)}/", status_code=303, headers={"Cache-Control": "no-store"})
        bypass.give(response, request, expiry, over_https=over_https)
        return response


def checked_base_url(url: object) -> str:
    """Return the URL at which the app is reached, without a slash at its end."""
    text = check_str("base_url", url)
    try:
        parts = urlsplit(text)
        absolute = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        absolute = False
    if absolute and text.isprintable() and not {" ", "?", "#", "@", "\\"} & set(text):
        return text.rstrip("/")
    msg = f"base_url must be an absolute http or https URL, such as https://shop.example, got {text!r}"
    raise ValueError(msg)
