"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

from fastapi_maintenance.cli.commands import main

__all__ = ["main"]
