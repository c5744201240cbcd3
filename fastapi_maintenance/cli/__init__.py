"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; where a package that it needs is missing, say which extra to install."""
    try:
        from fastapi_maintenance.cli.commands import main as run  # noqa: PLC0415 -- an extra
    except ImportError as error:
        sys.exit(f"error: {error}")
    run()
