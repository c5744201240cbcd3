"""The maintenance page: one file without scripts, under a policy that lets in nothing else."""

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
from fastapi_maintenance._helpers.checks import check_seconds, check_str, reject, reject_value
from fastapi_maintenance.responses.callbacks import current_status, offering
from fastapi_maintenance.responses.negotiation import preferred_language, spoken_language
from fastapi_maintenance.responses.policy import check_frame_ancestors, policy_for
from fastapi_maintenance.responses.words import PageWords, check_language, check_words, direction_of, in_words
from fastapi_maintenance.state import seconds_left
from fastapi_maintenance.typing import SyncResponseCallback

_COLOR = r"#[0-9A-Fa-f]{3,8}|[A-Za-z]+|[a-z]+\([0-9a-z.,%/ +-]*\)"
_WEB_URL = r"(?i)https?://[^\s\\\x00-\x20\x7f]+"
_TEXTS = ("language", "direction", "title", "message", "expected", "status_page")
_UNQUOTED = "!$%&'()*+,-./:;=?@[]^_`{|}~\\"
_MOST_REPEATED = 2000  # characters: proxies refuse responses whose headers are longer than 4 KiB

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
    """Answer `503` with a page for people, which needs neither scripts nor other files.

    >>> page = as_html(language="de")(blocked(message="Um zehn wieder da"))
    >>> b"<p>Um zehn wieder da</p>" in page.body
    True

    It shows the operator's message and how long it will take, as far as these are known, and is loaded again by itself
    when the maintenance is over: each visitor's at another moment of the `retry` seconds after that. It speaks English,
    Dutch, French, German, Italian, Portuguese and Spanish, and the languages of `words`.

    Args:
        title: Its title; None: in the visitor's language.
        message: What to say while there is no message of an operator; None: in the visitor's language.
        language: The language of the page (RFC 5646), one that it speaks; None: the one that `Accept-Language` prefers
            of those, else English.
        words: Texts in languages of your own, or other texts for a language that the page speaks, by language tag. A
            page in Arabic, Hebrew or another language of that kind is written from right to left.
        time_zone: The time zone in which the expected end is shown: its IANA name, or a tzinfo.
        status_page: The http or https URL of a page to link to.
        accent: The colour of the line above.
        light: The colours of background and text.
        dark: The same, for visitors who prefer dark pages.
        template: The page as `string.Template`, with `$title`, `$message`, `$expected`, `$status_page`, `$language` and
            `$direction`. Its `<style>` elements are let in by the Content-Security-Policy, and images of the same
            origin if it has any; scripts and other outside files are not.
        frame_ancestors: Who may show the page in a frame, as in a Content-Security-Policy: `'self'`, `*` and origins,
            with a space between, or `'none'`.
        retry: Seconds, or a timedelta. If the end is not known, the page is loaded again after one to two times as
            long.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument breaks its rule, which the error names.
    """
    for name, text in (("title", title), ("message", message)):
        if text is not None:
            check_str(name, text)
    languages = check_words("words", {} if words is None else words)
    if language is not None and not spoken_language(check_language("language", language), languages):
        reject_value("language", f"be one of {', '.join(sorted(languages))}, or have its texts in words", language)
    zone = _checked_zone(time_zone)
    ancestors = check_frame_ancestors("frame_ancestors", frame_ancestors)
    pause = check_seconds("retry", retry)
    colors = _checked_colors(accent, light=light, dark=dark)
    page = Template(re.sub(r"\r\n?", "\n", check_str("template", template)))  # as browsers read it
    try:
        policy, other = (policy_for(page.substitute(dict.fromkeys(_TEXTS, each), **colors), ancestors) for each in "ab")
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
        tag = language or preferred_language(request.headers.get("accept-language"), tuple(languages))
        texts = languages[spoken_language(tag, languages) or tag]
        left = seconds_left(status, now)
        body = page.substitute(
            **colors,
            language=tag,
            direction=direction_of(tag),
            title=escape(title or texts.title),
            message=escape(status.message or message or texts.message),
            expected=_expected(status.ends_at, left, texts, zone) if left and status.ends_at is not None else "",
            status_page=f'<p><a href="{escape(status_page)}">{escape(texts.status_page)}</a></p>'
            if status_page
            else "",
        )
        headers = {"Content-Security-Policy": policy, "Content-Language": tag, "Vary": "Accept-Language"}
        headers |= {"HX-Retarget": "body", "HX-Reswap": "innerHTML"}  # htmx shows no page within a part of another
        if request.method in {"GET", "HEAD"}:  # what was posted is not to be asked for
            wait = left or pause
            seconds = round(wait + random.uniform(0, pause))  # noqa: S311 -- no secret
            headers["Refresh"] = _refresh(seconds, request.scope["query_string"])
        return HTMLResponse(body, status_code=503, headers=headers)

    return offering("text/html", html_response)


def _checked_zone(time_zone: object) -> tzinfo:
    """Return the time zone of this name, or the one that was given."""
    if not isinstance(time_zone, (str, tzinfo)):
        reject("time_zone", "a name such as 'Europe/Berlin', or a tzinfo", time_zone)
    has_name = "be the name of a time zone that this system has (or install tzdata)"
    rule = has_name if isinstance(time_zone, str) else "be a tzinfo that knows its offset"
    try:
        zone = ZoneInfo(time_zone) if isinstance(time_zone, str) else time_zone
        clock.now().astimezone(zone).strftime("%Z %z")
    except Exception:  # noqa: BLE001 -- of the database of time zones, or of the tzinfo
        reject_value("time_zone", rule, time_zone)
    return zone


def _check_web_url(name: str, value: object) -> None:
    """Raise unless the value is an absolute http or https URL without a password."""
    url = check_str(name, value)
    try:
        parts = urlsplit(url)
        is_good = re.fullmatch(_WEB_URL, url) and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # of an IPv6 address or a port
        is_good = False
    if not is_good:
        reject_value(name, "be a URL that begins with https:// or http:// and a host, without a user", value)


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


def _refresh(seconds: int, query: bytes) -> str:
    """Return the header `Refresh` that loads the page again from its own address.

    Without a URL, Chromium only scrolls where the address ends with a `#fragment`. The query alone is a URL that keeps
    the path of the browser (RFC 3986 5.2.2): a proxy may have taken a prefix off the path that the app knows, and one
    that begins with `//` would name another host.
    """
    repeated = quote(query, safe=_UNQUOTED)
    return f"{seconds}; url=?{repeated}" if len(repeated) <= _MOST_REPEATED else str(seconds)


def _expected(ends_at: datetime, left: int, words: PageWords, zone: tzinfo) -> str:
    moment = ends_at.isoformat(timespec="seconds")
    time = f'<time datetime="{moment}">{escape(in_words(left, words))}</time>'
    try:
        local = ends_at.astimezone(zone)
    except OverflowError:  # at the end of the year 9999
        local = ends_at
    name = local.tzname() or f"{local:%z}"
    name = f"UTC{name}" if name.startswith(("+", "-")) else name  # where a zone has no abbreviation
    return f"<p>{escape(words.expected)} {time} ({local:%Y-%m-%d %H:%M} {escape(name)}).</p>"
