"""The maintenance page, `responses/page.py` and `responses/languages.py`; `tests/browser` shows it to a browser."""

import base64
import hashlib
import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit
from zoneinfo import ZoneInfo

import pytest
from fastapi.responses import Response
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import MaintenanceState, Switch, as_html, status_of
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.responses import STATUS_KEY
from fastapi_maintenance.responses.languages import LANGUAGES, in_words
from fastapi_maintenance.responses.page import PAGE
from tests.responses.test_responses import ON, POLISH, ask, ending_in, rendered
from tests.support import make_request

pytestmark = pytest.mark.anyio

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>&\"'$title"


def text_of(state: MaintenanceState = ON, accept_language: str = "en", **settings: Any) -> str:  # noqa: ANN401 -- of the page
    """Return the HTML of a page with these settings."""
    return bytes(rendered(as_html(**settings), state, ("Accept-Language", accept_language)).body).decode()


def policy_of(**settings: Any) -> str:  # noqa: ANN401 -- as above
    """Return the policy of a page with a hostile message, after checking that it allows exactly its styles."""
    response = rendered(as_html(**settings), ending_in(60, HOSTILE))
    policy: str = response.headers["content-security-policy"]
    styles = re.findall(r"<style>(.*?)</style>", bytes(response.body).decode(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    assert policy.startswith(f"default-src 'none'; style-src {allowed};")
    return policy


def refresh_of(response: Response) -> tuple[int, str]:
    """Return the seconds and the URL of the header `Refresh`, as HTML parses it (the shared declarative refresh)."""
    match = re.fullmatch(r"(\d+)(?:; url=([!-&(-~][!-~]*))?", response.headers["refresh"])
    assert match is not None
    return int(match[1]), match[2] or ""


@pytest.mark.usefixtures("stopped_at")
async def test_page_shows_the_message_and_the_end() -> None:
    response = await ask(as_html(), state=ending_in(1500, "Back at ten"), accept_language="en")
    assert (response.status_code, response.headers["content-type"]) == (503, "text/html; charset=utf-8")
    for part in (
        '<html lang="en" dir="ltr">',
        "<title>Down for maintenance</title>",
        "<p>Back at ten</p>",
        "in about 25 minutes</time>",
        '<meta name="turbo-visit-control" content="reload">',
    ):
        assert part in response.text
    headers = ("retry-after", "vary", "hx-retarget", "hx-reswap")
    assert [response.headers[name] for name in headers] == ["1500", "Accept-Language", "body", "innerHTML"]
    assert "<time" not in text_of()
    assert "refresh" not in (await ask(as_html(), method="POST")).headers


@pytest.mark.usefixtures("stopped_at")
@pytest.mark.parametrize(("seconds", "retry", "limits"), [(1500, 60, (1500, 1560)), (None, 20, (20, 40))])
def test_page_reloads_after_the_end_or_retry_at_a_random_moment(
    seconds: int | None, retry: int, limits: tuple[int, int]
) -> None:
    state = ON if seconds is None else ending_in(seconds)
    moments = {refresh_of(rendered(as_html(retry=retry), state))[0] for _ in range(100)}
    assert limits[0] <= min(moments) <= max(moments) <= limits[1]
    assert len(moments) > 5


@given(
    st.binary()
    | st.sampled_from([b"//evil.example", b"a\r\nX: y", b"#b", b"\\\\evil", b"%", b"a" * 2000, b"\xff" * 5000])
)
def test_page_reloads_its_own_address_whatever_the_query(query: bytes) -> None:
    request = make_request("//evil.example/x")
    request.scope.update({STATUS_KEY: status_of(ON, clock.now()), "query_string": query})
    response = as_html()(request)
    _, url = refresh_of(response)
    assert len(response.headers["refresh"]) < 2020
    assert url.startswith("?") or (not url and len(query) > 600)  # each byte takes up to three characters
    assert unquote_to_bytes(query) == unquote_to_bytes(url[1:]) or not url
    again = urlsplit(urljoin("http://testserver//evil.example/x#top", url or "?"))
    assert (again.scheme, again.netloc, again.path, again.fragment) == ("http", "testserver", "//evil.example/x", "")


@pytest.mark.parametrize(
    ("settings", "accept_language", "tag", "direction", "title"),
    [
        *(
            ({}, accept_language, language, "ltr", LANGUAGES[language].title)
            for accept_language, language in (
                ("de-AT,de;q=0.9,en;q=0.8", "de"), ("ru", "en"), ("ru, fr;q=0.3", "fr"), ("", "en"),
                ("en;q=0.1, es;q=0.2", "es"), ("de", "de"), ("fr;q=0.1\nde", "de"), ("zh-tw", "en"), ("pt-PT", "pt"),
                ("-,a-b-c-d-e-f-g," + "a-" * 2000, "en"),
            )
        ),
        ({}, "pl-PL, en;q=0.9", "pl", "ltr", POLISH.title),
        ({}, "zh-Hant-TW, en;q=0.5", "zh-hant", "ltr", POLISH.title),
        ({}, "he-IL", "he", "rtl", POLISH.title),
        ({}, "az-Arab, az-Latn;q=0.9", "az-arab", "rtl", POLISH.title),
        ({}, "pt-BR", "pt-br", "ltr", POLISH.title),
        ({"language": "pl"}, "de", "pl", "ltr", POLISH.title),
        ({"language": "HE-IL"}, "de", "HE-IL", "rtl", POLISH.title),
        ({"language": "fr-CA"}, "pl", "fr-CA", "ltr", "Maintenance en cours"),
    ],
)  # fmt: skip
def test_page_is_in_the_language_of_the_visitor_or_the_setting(
    settings: dict[str, Any], accept_language: str, tag: str, direction: str, title: str
) -> None:
    callback = as_html(words=dict.fromkeys(("PL", "zh-Hant", "he", "az-Arab", "pt-BR"), POLISH), **settings)
    response = rendered(callback, ending_in(7200), *(("Accept-Language", line) for line in accept_language.split("\n")))
    assert response.headers["content-language"] == tag
    found = re.findall(r"<html.*?>|<h1>.*?</h1>", bytes(response.body).decode())
    assert found == [f'<html lang="{tag}" dir="{direction}">', f"<h1>{title}</h1>"]


def test_page_words_replace_a_built_in_language() -> None:
    text = text_of(ending_in(7200), words={"en": POLISH})
    assert re.search(r"<p>Powrót <time .*>za około 2 godz\.</time>", text)


def test_page_shows_its_settings() -> None:
    colors: dict[str, Any] = {"accent": "teal", "light": ("#eee", "rgb(1 2 3)"), "dark": ("black", "hsl(0, 0%, 90%)")}
    text = text_of(title="Closed", message="We are moving", language="de-CH", **colors)
    for part in ('lang="de-CH"', "<h1>Closed</h1>", "<p>We are moving</p>", "teal", "--back: #eee", "hsl(0, 0%, 90%)"):
        assert part in text
    template = "<style>p { color: $accent }</style><p>$message costs $$5</p>"
    expected = "<style>p { color: red }</style><p>It costs $5</p>"
    assert text_of(template=template, accent="red", message="It") == expected


@pytest.mark.parametrize(
    ("time_zone", "ends_at", "expected"),
    [
        ("UTC", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 12:00 UTC"),
        ("Europe/Berlin", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 13:00 CET"),
        (ZoneInfo("Europe/Berlin"), datetime(2100, 7, 2, 23, tzinfo=UTC), "2100-07-03 01:00 CEST"),
        ("America/Sao_Paulo", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 09:00 UTC-03"),
        (timezone(timedelta(hours=2)), datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 14:00 UTC+02:00"),
        (timezone(timedelta(0), "<b>"), datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 12:00 &lt;b&gt;"),
        ("Asia/Tokyo", datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59 UTC"),
    ],
)
def test_page_shows_the_end_in_the_time_zone(time_zone: str | tzinfo, ends_at: datetime, expected: str) -> None:
    text = text_of(MaintenanceState(switch=Switch(on=True, ends_at=ends_at)), time_zone=time_zone)
    assert f" ({expected}).</p>" in text
    assert f'<time datetime="{ends_at.isoformat(timespec="seconds")}">' in text


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("template", [PAGE, "<p>$message</p>$status_page"])
def test_page_links_to_the_status_page_in_the_language_of_the_visitor(language: str, template: str) -> None:
    text = text_of(accept_language=language, template=template, status_page='https://status.example/?a=1&b="')
    links = re.findall(r'<p><a href="(.*?)">(.*?)</a></p>', text)
    assert links == [("https://status.example/?a=1&amp;b=&quot;", LANGUAGES[language].status_page)]
    assert "<a" not in text_of()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"),
        *(
            ({"template": f"<p>$message</p>{markup}"}, "; img-src data:;")
            for markup in (
                "",
                '<img alt="" src="data:image/png;base64,AA">',
                "<svg><rect fill='url(#a)'/></svg><a href='/'>$message</a>",
                "<style>p { background: url( 'data:image/png;base64,AA') }</style>",
            )
        ),
        *(
            ({"template": f"<p>$message</p>{markup}"}, "; img-src data: 'self';")
            for markup in (
                '<img alt="" src="/logo.png">',
                "<IMG\nsrc = logo.png>",
                '<img src="data:image/png;base64,AA" srcset="logo.png 2x">',
                '<svg><image href="logo.png"/></svg>',
                '<link rel="icon" href="/favicon.ico">',
                '<style>p { background: URL("logo.png") }</style>',
            )
        ),
        *(
            ({"frame_ancestors": value}, f"; frame-ancestors {value}")
            for value in (
                "'none'",
                "'self' https://portal.example",
                "https://*.portal.example:8443 http://localhost:*",
                "https: *",
            )
        ),
    ],
)
def test_policy_allows_the_styles_images_and_frames_of_the_settings(settings: dict[str, str], part: str) -> None:
    policy = policy_of(**settings)
    assert policy.endswith(part) if "frame" in part else part in policy


def test_policy_is_the_same_whatever_the_line_ends_of_the_template() -> None:
    pages = [rendered(as_html(template=f"<style>{end}h1 {{}}{end}</style>")) for end in ("\n", "\r\n", "\r")]
    assert len({(page.body, page.headers["content-security-policy"]) for page in pages}) == 1


@given(st.text(st.characters(codec="utf-8")) | st.just(HOSTILE))
def test_message_is_text_and_never_markup(message: str) -> None:
    text = text_of(ending_in(90, message), title="T", message="M")
    assert f"<p>{html.escape(message) or 'M'}</p>" in text
    assert text.count("<") == text_of(ending_in(90, "safe"), title="T", message="M").count("<")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, "in less than a minute"),
        (59, "in less than a minute"),
        (60, "in about 1 minute"),
        (61, "in about 2 minutes"),
        (3599, "in about 60 minutes"),
        (3600, "in about 1 hour"),
        (86_399, "in about 24 hours"),
        (86_400, "in about 1 day"),
        (200_000, "in about 3 days"),
    ],
)
def test_in_words_is_rounded_up_in_the_largest_unit(seconds: int, expected: str) -> None:
    assert in_words(seconds, LANGUAGES["en"]) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_words_every_language_has_six_texts(language: str) -> None:
    texts = {in_words(seconds, LANGUAGES[language]) for seconds in (1, 60, 120, 3600, 86_400, 172_800)}
    assert (len(texts), [text for text in texts if "{" in text]) == (6, [])
    assert replace(LANGUAGES[language]) == LANGUAGES[language]  # replace checks them
