"""Help for a terminal of any width: a table where there is room for one, else a list that cuts no name off."""

from functools import partial
from textwrap import fill
from typing import Any

import typer
from rich.console import Console
from typer.core import MarkupMode, TyperCommand, TyperGroup

_TABLE_WIDTH = 80  # columns, at least
_NAME_WIDTH = 8  # columns; in a list, the help of a longer name begins on the next line
_NOTES = {
    "DURATION": "A DURATION is 90s, 30m, 2h, 1d or 1h30m.",
    "TIME": (
        "A TIME is 22:00, the next such time, or a date and time: 2030-12-31 22:00 in your time zone, "
        "2030-12-31T22:00+01:00 in another."
    ),
}


class _AnyWidth:
    epilog: str | None
    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 -- Click's, or Typer's copy of it
        """Write the help as a table or as a list; below it the examples, and what may be given for a metavariable."""
        narrow = ctx.terminal_width is not None
        self.rich_markup_mode: MarkupMode = None if narrow else "rich"
        if narrow:
            formatter.write_dl = partial(formatter.write_dl, col_max=_NAME_WIDTH)
        examples, self.epilog = self.epilog, None  # which Typer would show as one paragraph
        super().format_help(ctx, formatter)  # type: ignore[misc]  # of the class that this one is mixed into
        self.epilog = examples
        typer.echo(formatter.getvalue(), nl=False)  # Typer expects format_help to print, as it does with a table
        formatter.buffer.clear()
        wrapped = partial(fill, width=Console().width - 1, break_on_hyphens=False, break_long_words=False)
        shown = (examples or "").splitlines()
        lines = [wrapped(line, initial_indent="  ", subsequent_indent="      ") for line in shown]
        typer.echo("\n".join([*[""] * narrow, "Examples:", *lines, ""]))
        metavars = [getattr(param, "metavar", None) for param in self.params]
        for note in [text for name, text in _NOTES.items() if name in metavars]:
            typer.echo(wrapped(note))

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 -- the name that Click gives it
        """Return the whole help: it is one sentence, and lines are broken between words."""
        return getattr(self, "help", None) or ""


class Command(_AnyWidth, TyperCommand):
    """A command with such help."""


class Group(_AnyWidth, TyperGroup):
    """A group of commands with such help."""

    def make_context(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 -- as above
        """Set the width of help and errors where the terminal is narrow; the contexts of commands inherit it."""
        width = Console().width
        return super().make_context(*args, terminal_width=width if width < _TABLE_WIDTH else None, **extra)
