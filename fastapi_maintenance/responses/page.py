"""The maintenance page: HTML without scripts or other files, and its Content-Security-Policy (CSP Level 3).

`languages.py` has its texts.
"""

import base64
import hashlib
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from html import escape
from string import Template
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, check_str, check_text, reject, reject_value
from fastapi_maintenance.responses.callbacks import current_status, offering
from fastapi_maintenance.responses.languages import (
    PageWords,
    check_language,
    check_words,
    direction_of,
    in_words,
    preferred_language,
    spoken_language,
)
from fastapi_maintenance.state import seconds_left
from fastapi_maintenance.typing import SyncResponseCallback

_COLOR = r"#[0-9A-Fa-f]{3,8}|[A-Za-z]+|[a-z]+\([0-9a-z.,%/ +-]*\)"
_WEB_URL = r"(?i)https?://[^\s\\\x00-\x20\x7f]+"
_STYLE = r"(?is)<style[^>]*>(.*?)</style>"
_OUTSIDE = r"\s*[\"']?\s*(?!data:|[#\"'\s])"
_IMAGE = rf"(?is)<(?:img|image|source|link)\b[^>]*?\b(?:src|srcset|href)\s*={_OUTSIDE}|url\({_OUTSIDE}"
_ANCESTOR = r"'self'|\*|https?:|https?://(?:\*\.)?[A-Za-z0-9.-]+(?::(?:[0-9]+|\*))?"
_TEXTS = ("language", "direction", "title", "message", "expected", "status_page")
_UNQUOTED = "!$%&'()*+,-./:;=?@[]^_`{|}~\\"
_QUERY_LIMIT = 2000  # characters: proxies refuse responses whose headers are longer than 4 KiB

PAGE = """<!DOCTYPE html>
<html lang="$language" dir="$direction">
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
p { margin: 0 0 1rem; overflow-wrap: anywhere; white-space: pre-line; unicode-bidi: plaintext; }
a { color: inherit; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$message</p>
$expected
$status_page
</main>
</body>
</html>
"""


def as_html(  # noqa: PLR0913 -- each is a part of the page
    *,
    title: str | None = None,
    message: str | None = None,
    language: str | None = None,
    words: Mapping[str, PageWords] | None = None,
    time_zone: str | tzinfo = UTC,
    status_page: str | None = None,
    accent: str = "#d97706",
    light: tuple[str, str] = ("#ffffff", "#1f2937"),
    dark: tuple[str, str] = ("#111827", "#f3f4f6"),
    template: str = PAGE,
    frame_ancestors: str = "'self'",
    retry: float | timedelta = 60.0,
) -> SyncResponseCallback:
    """Respond with `503` and a page for people, which needs neither scripts nor other files.

    >>> page = as_html(language="de")(blocked(message="Um zehn wieder da"))
    >>> b"<p>Um zehn wieder da</p>" in page.body
    True

    The page shows the operator's message and the expected end, if there are any. After the end it reloads itself, for
    each visitor at a random moment within `retry` seconds. It is in the visitor's language if that is Dutch, French,
    German, Italian, Portuguese, Spanish or one of `words`, otherwise in English.

    Args:
        title: The title; None or empty: a title in the visitor's language.
        message: The message if the operator gave none; None or empty: a message in the visitor's language.
        language: The language of the page, as a tag (RFC 5646); None: the best match for `Accept-Language`, else
            English.
        words: Texts for more languages, or other texts for a built-in one, by language tag. Languages such as Arabic
            and Hebrew are written from right to left.
        time_zone: The time zone of the expected end, as an IANA name or a tzinfo.
        status_page: The http or https URL of a page to link to.
        accent: The colour of the line at the top.
        light: The colours of background and text.
        dark: The same, for visitors who prefer dark pages.
        template: The page as `string.Template`, with `$title`, `$message`, `$expected`, `$status_page`, `$language` and
            `$direction`. The Content-Security-Policy allows its `<style>` elements, and images of the same origin if
            it has any; it blocks scripts and other files.
        frame_ancestors: Who may show the page in a frame, as in a Content-Security-Policy: `'self'`, `*` and origins,
            separated by spaces, or `'none'`.
        retry: Seconds, or a timedelta. If the end is not known, the page reloads after one to two times as long.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument breaks the rule that the error names.
    """
    for name, text in (("title", title), ("message", message)):
        if text is not None:
            check_text(name, text)
    languages = check_words("words", {} if words is None else words)
    if language is not None and not spoken_language(check_language("language", language), languages):
        reject_value("language", f"be one of {', '.join(sorted(languages))}, or have its texts in words", language)
    zone = _checked_zone(time_zone)
    ancestors = _checked_frame_ancestors(frame_ancestors)
    pause = check_seconds("retry", retry)
    colors = _checked_colors(accent, light=light, dark=dark)
    page = Template(re.sub(r"\r\n?", "\n", check_text("template", template)))  # as browsers read it
    try:
        policy, other = (_policy_of(page.substitute(dict.fromkeys(_TEXTS, each), **colors), ancestors) for each in "ab")
    except (KeyError, ValueError) as error:
        places = " ".join(f"${place}" for place in (*_TEXTS, *colors))
        msg = f"template must have no places but {places}, and $$ for a dollar sign: {error}"
        raise ValueError(msg) from None
    if policy != other:
        reject_value("template", "have no texts, such as $title, in a <style> element", template)
    if status_page is not None:
        _check_web_url("status_page", status_page)
        if "status_page" not in page.get_identifiers():
            reject_value("template", "have the place $status_page if status_page is given", template)

    def html_response(request: Request, /) -> Response:
        status, now = current_status(request), clock.now()
        accepted = ",".join(request.headers.getlist("accept-language"))
        tag = language or preferred_language(accepted, tuple(languages))
        texts = languages[spoken_language(tag, languages) or tag]
        left = seconds_left(status, now)
        link = f'<p><a href="{escape(status_page)}">{escape(texts.status_page)}</a></p>' if status_page else ""
        body = page.substitute(
            **colors,
            language=tag,
            direction=direction_of(tag),
            title=escape(title or texts.title),
            message=escape(status.message or message or texts.message),
            expected=_expected(status.ends_at, left, texts, zone) if left and status.ends_at is not None else "",
            status_page=link,
        )
        headers = {"Content-Security-Policy": policy, "Content-Language": tag, "Vary": "Accept-Language"}
        headers |= {"HX-Retarget": "body", "HX-Reswap": "innerHTML"}  # htmx replaces the whole page, not a part of it
        if request.method in {"GET", "HEAD"}:  # a form that was posted is not sent again
            seconds = round((left or pause) + random.uniform(0, pause))  # noqa: S311 -- not a secret
            headers["Refresh"] = _refresh(seconds, request.scope["query_string"])
        return HTMLResponse(body, status_code=503, headers=headers)

    return offering("text/html", html_response)


def _policy_of(page: str, frame_ancestors: str) -> str:
    """Return the policy of a page. It allows its own styles, and images of the same origin if the page has any."""
    digests = sorted({hashlib.sha256(style.encode()).digest() for style in re.findall(_STYLE, page)})
    styles = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    images = "data: 'self'" if re.search(_IMAGE, page) else "data:"
    others = f"base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    return f"default-src 'none'; style-src {styles}; img-src {images}; {others}"


def _checked_frame_ancestors(value: object) -> str:
    sources = check_str("frame_ancestors", value)
    if sources == "'none'" or all(re.fullmatch(_ANCESTOR, source) for source in sources.split(" ")):
        return sources
    rule = "be 'none', or 'self', * and origins such as https://portal.example, separated by spaces"
    return reject_value("frame_ancestors", rule, value)


def _checked_zone(time_zone: object) -> tzinfo:
    """Return the time zone of this name, or the tzinfo itself."""
    if not isinstance(time_zone, (str, tzinfo)):
        reject("time_zone", "a name such as 'Europe/Berlin', or a tzinfo", time_zone)
    known = "be the name of a time zone that this system knows (or install tzdata)"
    rule = known if isinstance(time_zone, str) else "be a tzinfo that knows its offset"
    try:
        zone = ZoneInfo(time_zone) if isinstance(time_zone, str) else time_zone
        clock.now().astimezone(zone).strftime("%Z %z")
    except Exception:  # noqa: BLE001 -- from the time zone database, or the user's tzinfo
        reject_value("time_zone", rule, time_zone)
    return zone


def _check_web_url(name: str, value: object) -> None:
    """Raise unless the value is an absolute http or https URL without a user or password."""
    url = check_text(name, value)
    try:
        parts = urlsplit(url)
        is_valid = re.fullmatch(_WEB_URL, url) and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # an invalid IPv6 address or port
        is_valid = False
    if not is_valid:
        reject_value(name, "be a URL that begins with https:// or http:// and a host, without a user", value)


def _checked_colors(accent: str, **pairs: object) -> dict[str, str]:
    """Return the colours by their places in the page. Each must be one CSS colour and nothing more."""
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


def _refresh(seconds: int, query: bytes) -> str:
    """Return the `Refresh` header that reloads the page.

    Without a URL, Chromium only scrolls if the address ends with a `#fragment`. A query alone is a relative URL that
    keeps the browser's path (RFC 3986 5.2.2). The path that the app knows would be wrong behind a proxy that strips a
    prefix, and one that begins with `//` would name another host.
    """
    repeated = quote(query, safe=_UNQUOTED)
    return f"{seconds}; url=?{repeated}" if len(repeated) <= _QUERY_LIMIT else str(seconds)


def _expected(ends_at: datetime, left: int, words: PageWords, zone: tzinfo) -> str:
    moment = ends_at.isoformat(timespec="seconds")
    time = f'<time datetime="{moment}">{escape(in_words(left, words))}</time>'
    try:
        local = ends_at.astimezone(zone)
    except OverflowError:  # at the end of the year 9999
        local = ends_at
    name = local.tzname() or f"{local:%z}"
    name = f"UTC{name}" if name.startswith(("+", "-")) else name  # some zones have no abbreviation
    return f"<p>{escape(words.expected)} {time} ({local:%Y-%m-%d %H:%M} {escape(name)}).</p>"
