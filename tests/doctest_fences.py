"""An extension for the reference: show the examples in docstrings as fenced Markdown code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class DoctestFences(Extension):
    """Fence the examples of every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # noqa: ANN401 -- other arguments of griffe
        """Change the docstring of an object in the source."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
