"""The maintenance page: one file without scripts, under a policy that lets in nothing else."""

import base64
import hashlib
import random
import re
from datetime import datetime, timedelta
from html import escape
from string import Template

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, check_str, reject, reject_value
from fastapi_maintenance.responses.callbacks import current_status, offering
from fastapi_maintenance.responses.negotiation import preferred_language
from fastapi_maintenance.responses.words import LANGUAGES, Words, in_words
from fastapi_maintenance.state import seconds_left
from fastapi_maintenance.typing import SyncResponseCallback

_STYLE = r"(?is)<style[^>]*>(.*?)</style>"
_COLOR = r"#[0-9A-Fa-f]{3,8}|[A-Za-z]+|[a-z]+\([0-9a-z.,%/ +-]*\)"
_LANGUAGE = r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*"
_TEXTS = ("language", "title", "message", "expected")

PAGE = """<!DOCTYPE html>
<html lang="$language">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="turbo-visit-control" content="reload">
<title>$title</title>
<style>
:root { color-scheme: light dark; --back: $light_background; --text: $light_text; --accent: $accent; }
@media (prefers-color-scheme: dark) { :root { --back: $dark_background; --text: $dark_text; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--back); color: var(--text); font: 1.125rem/1.6 system-ui, sans-serif; }
main { max-width: 36rem; width: 100%; border-top: 0.375rem solid var(--accent); padding-top: 1.5rem; }
h1 { margin: 0 0 1rem; font-size: clamp(1.75rem, 6vw, 2.5rem); line-height: 1.2; text-wrap: balance; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; white-space: pre-line; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$message</p>
$expected
</main>
</body>
</html>
"""


def as_html(  # noqa: PLR0913 -- each is a part of the page
    *,
    title: str | None = None,
    message: str | None = None,
    language: str | None = None,
    accent: str = "#d97706",
    light: tuple[str, str] = ("#ffffff", "#1f2937"),
    dark: tuple[str, str] = ("#111827", "#f3f4f6"),
    template: str = PAGE,
    retry: float | timedelta = 60.0,
) -> SyncResponseCallback:
    """Answer `503` with a page for people, which needs neither scripts nor other files.

    >>> page = as_html(language="de")(blocked(message="Um zehn wieder da"))
    >>> b"<p>Um zehn wieder da</p>" in page.body
    True

    It shows the operator's message and how long it will take, as far as these are known, and is loaded again by itself
    when the maintenance is over: each visitor's at another moment of the `retry` seconds after that.

    Args:
        title: Its title; None: in the visitor's language.
        message: What to say while there is no message of an operator; None: in the visitor's language.
        language: The language of the page (RFC 5646); None: the one of `Accept-Language` that the page knows best.
        accent: The colour of the line above.
        light: The colours of background and text.
        dark: The same, for visitors who prefer dark pages.
        template: The page as `string.Template`, with `$title`, `$message`, `$expected` and `$language`. Its `<style>`
            elements are let in by the Content-Security-Policy; scripts and outside files are not.
        retry: Seconds, or a timedelta. If the end is not known, the page is loaded again after one to two times as
            long.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A colour or `language` is none, `template` has other places, or `retry` is not above zero.
    """
    for name, text in (("title", title), ("message", message), ("language", language)):
        if text is not None:
            check_str(name, text)
    if language is not None and not re.fullmatch(_LANGUAGE, language):
        reject_value("language", "be a language tag such as 'en' or 'pt-BR'", language)
    pause = check_seconds("retry", retry)
    colors = _checked_colors(accent, light=light, dark=dark)
    page = Template(check_str("template", template))
    try:
        policy = _policy_for(page.substitute(dict.fromkeys(_TEXTS, ""), **colors))
    except (KeyError, ValueError) as error:
        places = " ".join(f"${place}" for place in (*_TEXTS, *colors))
        msg = f"template must have no places but {places}, and $$ for a dollar sign: {error}"
        raise ValueError(msg) from None

    def html_response(request: Request, /) -> Response:
        status, now = current_status(request), clock.now()
        spoken = language or preferred_language(request.headers.get("accept-language"), tuple(LANGUAGES))
        words = LANGUAGES.get(spoken.lower().partition("-")[0], LANGUAGES["en"])
        left = seconds_left(status, now)
        body = page.substitute(
            **colors,
            language=spoken,
            title=escape(title or words.title),
            message=escape(status.message or message or words.message),
            expected=_expected(status.ends_at, left, words) if left and status.ends_at is not None else "",
        )
        headers = {"Content-Security-Policy": policy, "Content-Language": spoken, "Vary": "Accept-Language"}
        headers |= {"HX-Retarget": "body", "HX-Reswap": "innerHTML"}  # htmx shows no page within a part of another
        if request.method in {"GET", "HEAD"}:  # what was posted is not to be asked for
            wait = left or pause
            headers["Refresh"] = str(round(wait + random.uniform(0, pause)))  # noqa: S311 -- no secret
        return HTMLResponse(body, status_code=503, headers=headers)

    return offering("text/html", html_response)


def _checked_colors(accent: str, **pairs: object) -> dict[str, str]:
    """Return the colours of the page by their places, where each is one as CSS has it and nothing more than that."""
    colors = {"accent": accent}
    for name, pair in pairs.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != len(("background", "text")):
            reject(name, "a pair of colours: background and text", pair)
        colors |= {f"{name}_background": pair[0], f"{name}_text": pair[1]}
    for place, color in colors.items():
        name = place.partition("_")[0]
        if not re.fullmatch(_COLOR, check_str(name, color)):
            reject_value(name, "be a CSS colour such as '#0b5fff', 'teal' or 'rgb(11 95 255)'", color)
    return colors


def _policy_for(page: str) -> str:
    """Return the Content-Security-Policy (CSP Level 3) of a page: its own styles, images within it, nothing else."""
    digests = sorted({hashlib.sha256(style.encode()).digest() for style in re.findall(_STYLE, page)})
    styles = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    others = "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"default-src 'none'; style-src {styles}; {others}"


def _expected(ends_at: datetime, left: int, words: Words) -> str:
    moment = ends_at.isoformat(timespec="seconds")
    time = f'<time datetime="{moment}">{in_words(left, words)}</time>'
    return f"<p>{words.expected} {time} ({ends_at:%Y-%m-%d %H:%M} UTC).</p>"
