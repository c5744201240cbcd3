"""Help for a terminal of any width: a table where there is room for one, else a list that cuts no name off."""

from functools import partial
from typing import Any

import typer
from rich.console import Console
from typer.core import MarkupMode, TyperCommand, TyperGroup

_TABLE_WIDTH = 80  # columns, at least
_NAME_WIDTH = 8  # columns; in a list, the help of a longer name begins on the next line


class _AnyWidth:
    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 -- Click's, or Typer's copy of it
        """Write the help as a table or as a list."""
        narrow = ctx.terminal_width is not None
        self.rich_markup_mode: MarkupMode = None if narrow else "rich"
        if narrow:
            formatter.write_dl = partial(formatter.write_dl, col_max=_NAME_WIDTH)
        super().format_help(ctx, formatter)  # type: ignore[misc]  # of the class that this one is mixed into
        typer.echo(formatter.getvalue(), nl=False)  # Typer expects format_help to print, as it does with a table
        formatter.buffer.clear()

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
