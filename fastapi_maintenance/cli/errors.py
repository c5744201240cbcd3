"""Errors of the command: one line on standard error instead of a traceback, and an exit status."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from fastapi_maintenance.cli.show import print_error
from fastapi_maintenance.errors import InvalidStateError, MaintenanceError

_NAMES = {
    "ends_at needs": "an end needs",
    "ends_at": "--until",
    "starts_at": "--from",
    "hold_id": "release",
    "plan_maintenance()": "plan",
    "cancel_maintenance()": "cancel",
    "drain must": "--drain must",
    "workers needs drain": "--workers needs --drain",
}
_logger = logging.getLogger("fastapi_maintenance")


def fail(text: str, *, status: int = 2) -> NoReturn:
    """Print an error message and end the command, by default with the exit status of wrong usage."""
    print_error(text)
    raise typer.Exit(status)


def store_problem(error: Exception) -> str:
    """Return the error message for an exception that a store raised."""
    return f"the store cannot be reached: {type(error).__name__}: {error}"


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """If the block raises, end the command with one line, in which options replace parameter names.

    Log records of the block are one line each, too.
    """
    records = _OneLineHandler()
    _logger.addHandler(records)
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo(nl=sys.stderr.isatty(), err=True)  # end the line on which a terminal has shown ^C
        raise typer.Exit(130) from None
    except InvalidStateError as error:
        fail(f"the stored value is not a valid state (`on` and `off` overwrite it): {error}", status=1)
    except (ValueError, ImportError) as error:
        fail(_with_options(str(error)))
    except MaintenanceError as error:
        fail(_with_options(str(error)), status=1)
    except Exception as error:  # noqa: BLE001 -- whatever a store raises
        fail(store_problem(error), status=1)
    finally:
        _logger.removeHandler(records)


def _with_options(text: str) -> str:
    """If an error begins with a parameter or function, return it with names of the command instead."""
    pattern = "|".join(map(re.escape, _NAMES))
    return re.sub(pattern, lambda found: _NAMES[found[0]], text) if re.match(pattern, text) else text


class _OneLineHandler(logging.Handler):
    """Print log records on standard error, one line each, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message."""
        text = " ".join(record.getMessage().split())
        print(f"fastapi-maintenance: {text}", file=sys.stderr)  # noqa: T201 -- not with Rich: the command that runs owns the terminal
