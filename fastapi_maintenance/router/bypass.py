"""Routes that let a client in while maintenance is on: by the secret, or by a link from somebody who knows it."""

from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from fastapi_maintenance._helpers.checks import check_str
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance.predicates.bypass import BypassCookie, app_root
from fastapi_maintenance.router.models import Admission, Presented
from fastapi_maintenance.router.refusals import refusals

_TOKEN_LIMIT = 512  # characters


def add_bypass(router: APIRouter, bypass: BypassCookie, base_url: str | None) -> None:
    """Add the route that gives the cookie for the secret, and the one that gives it for a link."""
    forbidden = HTTPException(403, "Forbidden")

    @router.post("/bypass", responses=refusals(400, 403, 413), summary="Get in while maintenance is on")
    async def present(presented: Presented, request: Request, response: Response) -> Admission:
        if not bypass.knows(presented.secret):
            raise forbidden
        expiry = bypass.new_expiry()
        bypass.give(response, request, expiry)
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
        bypass.give(response, request, expiry)
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
