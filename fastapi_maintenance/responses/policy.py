"""The Content-Security-Policy (CSP Level 3) of the maintenance page: what it may load, and who may frame it."""

import base64
import hashlib
import re

from fastapi_maintenance._helpers.checks import check_str, reject_value

_STYLE = r"(?is)<style[^>]*>(.*?)</style>"
_OUTSIDE = r"\s*[\"']?\s*(?!data:|[#\"'\s])"
_IMAGE = rf"(?is)<(?:img|image|source|link)\b[^>]*?\b(?:src|srcset|href)\s*={_OUTSIDE}|url\({_OUTSIDE}"
_ANCESTOR = r"'self'|\*|https?:|https?://(?:\*\.)?[A-Za-z0-9.-]+(?::(?:[0-9]+|\*))?"


def policy_for(page: str, frame_ancestors: str) -> str:
    """Return the policy of a page: its own styles, images within it, those of its server if it has them, nothing else.

    >>> policy_for("<img src='/logo.png'>", "'none'")  # doctest: +ELLIPSIS
    "default-src 'none'; style-src 'none'; img-src data: 'self'; ...; frame-ancestors 'none'"
    """
    digests = sorted({hashlib.sha256(style.encode()).digest() for style in re.findall(_STYLE, page)})
    styles = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    images = "data: 'self'" if re.search(_IMAGE, page) else "data:"
    others = f"base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    return f"default-src 'none'; style-src {styles}; img-src {images}; {others}"


def check_frame_ancestors(name: str, value: object) -> str:
    """Return the value if the directive `frame-ancestors` can have it."""
    sources = check_str(name, value)
    if sources == "'none'" or all(re.fullmatch(_ANCESTOR, source) for source in sources.split(" ")):
        return sources
    return reject_value(name, "be 'none', or 'self', * and origins such as https://portal.example, with a space", value)
