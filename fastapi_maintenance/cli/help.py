"""Help that can be read in a narrow terminal, where a table would cut the names of the options off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

__all__ = ["Command", "Group"]

_ENOUGH = 80  # columns
_NAMES = 8  # columns; the help of a longer name begins on the next line


class Group(TyperGroup):
    """A group of commands that knows how wide the terminal is, where that is not enough for a table."""

    def make_context(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 -- Click's, or Typer's copy of it
        """Make the context, from which the commands have the width too."""
        width = Console().width
        return super().make_context(*args, terminal_width=None if width >= _ENOUGH else width, **extra)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 -- Click's, or Typer's copy of it
        """Write the help as it fits."""
        _write_help(self, super().format_help, ctx, formatter)


class Command(TyperCommand):
    """A command with such help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 -- Click's, or Typer's copy of it
        """Write the help as it fits."""
        _write_help(self, super().format_help, ctx, formatter)

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 -- the name that Click gives it
        """Return what the command does, whole: it is a sentence, and lines are broken between words."""
        return self.help or ""


def _write_help(command: Group | Command, write: Callable[[Any, Any], None], ctx: Any, formatter: Any) -> None:  # noqa: ANN401 -- Click's, or Typer's copy of it
    narrow = ctx.terminal_width is not None
    command.rich_markup_mode = None if narrow else "rich"
    if narrow:
        formatter.write_dl = partial(formatter.write_dl, col_max=_NAMES)
    write(ctx, formatter)
    typer.echo(formatter.getvalue(), nl=False)  # here, as a table is: Typer counts on it where no command is given
    formatter.buffer.clear()
