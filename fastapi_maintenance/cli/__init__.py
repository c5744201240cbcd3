"""The command `fastapi-maintenance`, for operators and deployment scripts."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command. If a package that it needs is missing, print which extra to install."""
    try:
        from fastapi_maintenance.cli.commands import main as run  # noqa: PLC0415 -- an extra
    except ImportError as error:
        sys.exit(f"error: {error}")
    run()
