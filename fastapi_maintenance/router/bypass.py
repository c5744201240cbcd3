"""The routes that give out the bypass cookie: to a client that sends the secret, and to one that follows a link.

What a valid cookie is, its attributes and when it expires, is in `predicates/bypass_cookie.py`.
"""

from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from fastapi_maintenance._helpers.checks import check_str, reject, reject_value
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance.predicates.bypass_cookie import BypassCookie, app_root
from fastapi_maintenance.router.schema import AdminRoute, Admission, Presented, check_prefix, refusals

_TOKEN_LIMIT = 512  # characters


def bypass_router(bypass: BypassCookie, *, prefix: str = "/maintenance", base_url: str | None = None) -> APIRouter:
    """Return a router that lets people in during maintenance, and nothing else.

    >>> from fastapi import FastAPI
    >>> from fastapi_maintenance import bypass_cookie
    >>> app = FastAPI()
    >>> app.include_router(bypass_router(bypass_cookie("a long secret that nobody guesses")))

    `POST <prefix>/bypass` gives the cookie, and a link that gives it to others, to anyone who sends the secret. No
    dependency applies: visitors who are locked out have no other way in.

    Args:
        bypass: The `bypass_cookie(...)` that exempts in the middleware.
        prefix: The prefix of the paths.
        base_url: The public URL of the app, such as `https://shop.example`, for links; None: the host in the request,
            which the client can forge. If it begins with `https`, the cookie is `Secure`, whatever scheme a proxy
            reports.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `prefix` does not begin with a slash or ends with one, or `base_url` is not an absolute URL.
    """
    if not isinstance(bypass, BypassCookie):
        reject("bypass", "created by bypass_cookie", bypass)
    base = checked_base_url(base_url)
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"], route_class=AdminRoute)
    add_bypass(router, bypass, base)
    return router


def add_bypass(router: APIRouter, bypass: BypassCookie, base_url: str | None) -> None:
    """Add the route that gives the cookie for the secret, and the one that gives it for a link."""
    over_https = base_url is not None and urlsplit(base_url).scheme == "https"

    @router.post("/bypass", responses=refusals(400, 403, 413), summary="Get the bypass cookie for the secret")
    async def post_secret(presented: Presented, request: Request, response: Response) -> Admission:
        if not bypass.knows(presented.secret):
            raise HTTPException(403, "Forbidden")
        expiry = bypass.new_expiry()
        bypass.give(response, request, expiry, over_https=over_https)
        response.headers["Cache-Control"] = "no-store"
        base = str(request.base_url).rstrip("/") if base_url is None else base_url
        path = quote(route_path({**request.scope, "root_path": app_root(request)}))
        return Admission(link=f"{base}{path}?{urlencode({'token': bypass.signed('link', expiry)})}")

    @router.get(
        "/bypass",
        responses=refusals(403),
        status_code=303,
        response_class=RedirectResponse,
        summary="Get the bypass cookie for a link",
    )
    async def follow_link(token: Annotated[str, Query(max_length=_TOKEN_LIMIT)], request: Request) -> Response:
        expiry = bypass.expiry_in(token, "link")
        if expiry is None:
            raise HTTPException(403, "Forbidden")
        response = RedirectResponse(f"{app_root(request)}/", status_code=303, headers={"Cache-Control": "no-store"})
        bypass.give(response, request, expiry, over_https=over_https)
        return response


def checked_base_url(url: object) -> str | None:
    """Return the public URL of the app without a slash at its end, or None if there is none; raise if it is invalid."""
    if url is None:
        return None
    text = check_str("base_url", url)
    try:
        parts = urlsplit(text)
        is_absolute = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_absolute = False
    if is_absolute and text.isprintable() and not {" ", "?", "#", "@", "\\"} & set(text):
        return text.rstrip("/")
    return reject_value("base_url", "be an absolute http or https URL, such as https://shop.example", text)
